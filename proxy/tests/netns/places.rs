//! Replacing, adding or removing one of many endpoints leaves the rules of the others in place.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::fixture::Fixture;
use super::matrix::{BackendKind, Case, for_every_backend, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::testbed::{Pod, Testbed};
use api::Family;
use rules::Protocol::Tcp;
use serde_json::json;
use std::collections::BTreeMap;

for_every_backend_and_family![
    replacing_one_of_many_endpoints_changes_few_rules,
    replacing_one_of_many_endpoints_with_affinity_changes_few_rules,
];

for_every_backend![endpoint_places_survive_a_restart_in_every_pod];

/// Number of occurrences of each rule or element.
type Lines = BTreeMap<String, usize>;

/// All translation rules, line by line, with rule handles where the kernel has them: a rewritten rule has another handle.
fn list_rules(client: &Pod, kind: BackendKind, family: Family) -> Lines {
    let number = match family {
        Family::V4 => "",
        Family::V6 => "6",
    };
    let command = match kind {
        BackendKind::Nftables => format!("nft -s -a list table ip{number} multus-proxy"),
        BackendKind::IptablesNft => format!("nft -s -a list table ip{number} nat"),
        BackendKind::IptablesLegacy => format!("ip{number}tables-legacy -t nat -S"),
    };
    let mut lines = Lines::new();
    // No table exists before the first write.
    let listing = client.sh(&format!("{command} 2>/dev/null || true"));
    for line in listing.split(['\n', ',']) {
        // Strips list delimiters. `-s` omits the remaining timeouts.
        let line = line
            .trim()
            .trim_end_matches('}')
            .trim()
            .trim_start_matches("elements = {");
        *lines.entry(line.trim().to_owned()).or_default() += 1;
    }
    lines
}

/// Number of lines that occur in only one of them.
fn differing(before: &Lines, after: &Lines) -> usize {
    let missing = |these: &Lines, those: &Lines| -> usize {
        let of =
            |(line, count): (&String, &usize)| count.saturating_sub(those.get(line).copied().unwrap_or(0));
        these.iter().map(of).sum()
    };
    missing(before, after) + missing(after, before)
}

/// Hosts of 60 endpoints. Changes are in the middle, so that most endpoints follow.
fn steps() -> [(&'static str, Vec<u8>); 5] {
    let all: Vec<u8> = (101..=160).collect();
    let but = |host: u8, more: &[u8]| -> Vec<u8> {
        let rest = all.iter().copied().filter(|other| *other != host);
        rest.chain(more.iter().copied()).collect()
    };
    [
        ("filled", all.clone()),
        ("replaced by one that sorts first", but(130, &[20])),
        ("one removed", but(131, &[])),
        ("two added back", all.clone()),
        ("replaced by one that sorts last", but(101, &[200])),
    ]
}

/// At most `most` lines may differ per added or removed endpoint.
fn assert_few_lines_differ(case: Case, web: &mut Service, most: usize) {
    let mut fixture = Fixture::new(case, &[]);
    let (mut before, mut held) = (Lines::new(), Vec::new());
    for (what, hosts) in steps() {
        web.endpoints = ready(&hosts);
        fixture.sync_to(&[web]);
        let after = list_rules(&fixture.client, case.kind, case.family);
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
        // A restarted proxy reads the places of endpoints and keeps them.
        assert!(!fixture.resync_writes(), "{what}");
        let again = list_rules(&fixture.client, case.kind, case.family);
        assert_eq!(again, after, "{what}");
        (before, held) = (after, hosts);
    }
}

fn replacing_one_of_many_endpoints_changes_few_rules(case: Case) {
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080)]);
    assert_few_lines_differ(case, &mut web, 4);
}

/// With affinity an endpoint needs one more chain or element.
fn replacing_one_of_many_endpoints_with_affinity_changes_few_rules(case: Case) {
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080)]);
    web.spec = json!({"sessionAffinity": "ClientIP"});
    assert_few_lines_differ(case, &mut web, 10);
}

/// Places depend on previous changes, not on addresses alone: the next proxy has to adopt them.
fn endpoint_places_survive_a_restart_in_every_pod(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let clients = [7, 8].map(|host| testbed.pod(host));
    let objects = clients.each_ref().map(object);
    let pods: Vec<_> = objects.iter().collect();
    let runtime = FakeRuntime::new();
    for (client, object) in clients.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &client.netns);
    }
    let list = || {
        clients
            .each_ref()
            .map(|client| list_rules(client, kind, Family::V4))
    };
    let arrives = |host: u8| {
        let address = format!("10.1.0.{host}");
        let has_it = |lines: &Lines| lines.keys().any(|line| line.contains(&address));
        until("the endpoint is in every pod", || list().iter().all(has_it));
        list()
    };
    let all: Vec<u8> = (101..=160).collect();
    let with = |gone: &[u8], new: &[u8]| -> Vec<u8> {
        let rest = all.iter().filter(|host| !gone.contains(host));
        rest.chain(new).copied().collect()
    };
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080)]).ready(&all);
    let driver = Driver::start(&runtime, kind, &[&web], &pods);
    arrives(160);
    web.endpoints = ready(&with(&[130], &[20]));
    driver.service(&web);
    let before = arrives(20);
    driver.stop();
    let driver = Driver::start(&runtime, kind, &[&web], &pods);
    until("ready", || driver.is_ready());
    assert_eq!(list(), before, "nothing is written at a start");
    web.endpoints = ready(&with(&[130, 131], &[20, 21]));
    driver.service(&web);
    for (before, after) in before.iter().zip(&arrives(21)) {
        let differing = differing(before, after);
        assert!(
            differing <= 8,
            "{differing} lines differ for an endpoint that is replaced"
        );
    }
}
