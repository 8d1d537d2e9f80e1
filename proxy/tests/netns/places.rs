//! One endpoint of many is replaced, comes or goes: the rules of the others stay as they are.

use super::case::{Case, Kind, for_every_backend_and_family};
use super::cluster::{Service, ready};
use super::scene::Scene;
use rules::Family;
use rules::Protocol::Tcp;
use serde_json::json;
use std::collections::BTreeMap;

for_every_backend_and_family![
    one_endpoint_of_many_changes_few_rules,
    one_endpoint_of_many_with_affinity_changes_few_rules,
];

/// How often each rule, or element, is there.
type Lines = BTreeMap<String, usize>;

/// Everything that translates, line by line, with the handles of rules where the kernel has some: a rule that is written again has another.
fn listed(scene: &Scene) -> Lines {
    let number = match scene.family {
        Family::V4 => "",
        Family::V6 => "6",
    };
    let command = match scene.kind {
        Kind::Nftables => format!("nft -a list table ip{number} multus-proxy"),
        Kind::IptablesNft => format!("nft -a list table ip{number} nat"),
        Kind::IptablesLegacy => format!("ip{number}tables-legacy -t nat -S"),
    };
    let mut lines = Lines::new();
    for line in scene.client.sh(&command).split(['\n', ',']) {
        // Not the end of a list, nor how long a client has left.
        let line = line
            .trim()
            .trim_end_matches('}')
            .trim()
            .trim_start_matches("elements = {");
        *lines.entry(line.trim().to_owned()).or_default() += 1;
    }
    lines
}

/// How many lines only one of them has.
fn differing(before: &Lines, after: &Lines) -> usize {
    let less = |these: &Lines, those: &Lines| -> usize {
        let of =
            |(line, count): (&String, &usize)| count.saturating_sub(those.get(line).copied().unwrap_or(0));
        these.iter().map(of).sum()
    };
    less(before, after) + less(after, before)
}

/// Hosts of 60 endpoints. The change is in the middle, where most of them follow.
fn steps() -> [(&'static str, Vec<u8>); 5] {
    let all: Vec<u8> = (101..=160).collect();
    let but = |host: u8, more: &[u8]| -> Vec<u8> {
        let rest = all.iter().copied().filter(|other| *other != host);
        rest.chain(more.iter().copied()).collect()
    };
    [
        ("filled", all.clone()),
        ("replaced by one that sorts first", but(130, &[20])),
        ("one gone", but(131, &[])),
        ("two come back", all.clone()),
        ("replaced by one that sorts last", but(101, &[200])),
    ]
}

/// `most` lines may differ for each endpoint that came or went.
fn check(case: Case, web: &mut Service, most: usize) {
    let mut scene = Scene::new(case, &[]);
    let (mut before, mut held) = (Lines::new(), Vec::new());
    for (what, hosts) in steps() {
        web.endpoints = ready(&hosts);
        scene.sync_to(&[web]);
        let after = listed(&scene);
        if !held.is_empty() {
            let changed = hosts.iter().filter(|host| !held.contains(*host)).count()
                + held.iter().filter(|host| !hosts.contains(*host)).count();
            let differing = differing(&before, &after);
            assert!(differing > 0, "{what}: nothing was written");
            assert!(
                differing <= most * changed + 8,
                "{what}: {differing} lines differ for {changed} endpoints"
            );
        }
        // A proxy that starts reads where endpoints are, and leaves them there.
        assert!(!scene.sync_again_writes(), "{what}");
        assert_eq!(listed(&scene), after, "{what}");
        (before, held) = (after, hosts);
    }
}

fn one_endpoint_of_many_changes_few_rules(case: Case) {
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080)]);
    check(case, &mut web, 4);
}

/// Where a client is remembered an endpoint has a chain, or an element, more.
fn one_endpoint_of_many_with_affinity_changes_few_rules(case: Case) {
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080)]);
    web.spec = json!({"sessionAffinity": "ClientIP"});
    check(case, &mut web, 10);
}
