//! Rendering: the exact text, and the parts that a change omits.

use super::*;
use ::rules::{KernelState, PodRules, Settings, VipRules};
use api::network_status::NetworkStatus;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Service `web/nginx` (TCP http, UDP dns) with these endpoints on macvlan1, and `web/empty` with none.
fn rules(hosts: &[u8]) -> PodRules {
    let metadata = |name: &str| {
        json!({
            "name": name, "namespace": "web", "uid": format!("uid-{name}"),
            "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
            "annotations": {"k8s.v1.cni.cncf.io/service-network": "macvlan1"},
        })
    };
    let service = |name: &str, vips: &[&str], ports: serde_json::Value| -> Service {
        serde_json::from_value(
            json!({"metadata": metadata(name), "spec": {"clusterIPs": vips, "ports": ports}}),
        )
        .unwrap()
    };
    let slice = |suffix: &str, family: &str, addresses: Vec<String>| -> EndpointSlice {
        let endpoints: Vec<_> = addresses
            .into_iter()
            .map(|address| json!({"addresses": [address]}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("nginx-multus-{suffix}"), "namespace": "web",
                "labels": {"endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io", "kubernetes.io/service-name": "nginx"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "nginx", "uid": "uid-nginx"}],
            },
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        }))
        .unwrap()
    };
    let services = [
        service(
            "nginx",
            &["172.30.0.10", "fd00:96::a"],
            json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        ),
        service("empty", &["172.30.0.11"], json!([{"port": 80}])),
    ];
    let slices = [
        slice(
            "a",
            "IPv4",
            hosts.iter().map(|host| format!("10.1.0.{host}")).collect(),
        ),
        slice(
            "b",
            "IPv6",
            hosts.iter().map(|host| format!("fd00:1::{host}")).collect(),
        ),
    ];
    let net1 = NetworkStatus {
        network: "web/macvlan1".to_owned(),
        interface: "net1".to_owned(),
        addresses: vec!["10.1.0.7".parse().unwrap(), "fd00:1::7".parse().unwrap()],
    };
    ::rules::plan(&Settings::default(), &services, &slices, "web", &[net1]).rules
}

/// Returns the content of a table after `change`.
fn written(mut chains: Chains, change: Change) -> Chains {
    chains.retain(|chain, _| !change.delete.contains(chain));
    chains.extend(change.set);
    for (chain, rules) in &mut chains {
        let edits: Vec<&Edit> = change.edits.iter().filter(|edit| edit.chain == *chain).collect();
        *rules = edits::made(std::mem::take(rules), &edits);
    }
    chains
}

fn vips(rules: &PodRules, family: Family) -> BTreeSet<IpAddr> {
    rules.vips(family).into_keys().collect()
}

/// As `iptables -S` would list it.
fn listing(table: Table, chains: &Chains) -> String {
    let mut text = String::from("-P OUTPUT ACCEPT\n-N USER\n");
    for (hook, rule) in table.jumps(true) {
        text.extend(["-A ", hook, " ", &rule, "\n"]);
    }
    text.push_str("-A OUTPUT -j USER\n");
    for chain in chains.keys() {
        text.extend(["-N ", chain, "\n"]);
    }
    for (chain, rule) in chains
        .iter()
        .flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain, rule)))
    {
        text.extend(["-A ", chain, " ", rule, "\n"]);
    }
    text
}

/// Renders the chains of a pod.
fn whole(delta: &Delta<'_>, table: Table, family: Family) -> Chains {
    super::whole(delta, table, family, true)
}

fn read_back(rules: &PodRules) -> KernelState {
    let mut dump = KernelState::default();
    for family in Family::ALL {
        let delta = Delta::from_nothing(rules);
        let read =
            |table: Table| read::Listing::parse(table, true, &listing(table, &whole(&delta, table, family)));
        read::read(&read(Table::Filter), &read(Table::Nat), family, true, &mut dump);
    }
    dump
}

fn first(rules: &PodRules, table: Table, family: Family) -> String {
    let change = Change {
        set: whole(&Delta::from_nothing(rules), table, family),
        jumps: table.jumps(true),
        ..Change::default()
    };
    change.text(table)
}

#[test]
fn translation_is_rendered() {
    insta::assert_snapshot!(first(&rules(&[2, 3, 4]), Table::Nat, Family::V4));
}

#[test]
fn translation_is_rendered_for_ipv6() {
    insta::assert_snapshot!(first(&rules(&[2]), Table::Nat, Family::V6));
}

#[test]
fn affinity_is_rendered() {
    insta::assert_snapshot!(first(&with_affinity(&rules(&[2, 3])), Table::Nat, Family::V4));
}

#[test]
fn rejection_is_rendered() {
    insta::assert_snapshot!(first(&rules(&[2]), Table::Filter, Family::V4));
}

#[test]
fn foreign_flows_on_a_node_are_not_changed() {
    let vips = vips(&rules(&[2]), Family::V4);
    let [pod, node] = [true, false].map(|is_pod| {
        let written = rejection(&vips, &vips, Family::V4, is_pod).set;
        assert_eq!(written, rejection::whole(&vips, Family::V4, is_pod));
        written[&Table::Filter.root()].join("\n")
    });
    assert!(
        pod.contains("--ctstate INVALID") && !node.contains("--ctstate INVALID"),
        "{node}"
    );
}

#[test]
fn rejection_is_rendered_for_ipv6() {
    insta::assert_snapshot!(first(&rules(&[2]), Table::Filter, Family::V6));
}

/// Returns the rules with an affinity of 60 s on every port.
fn with_affinity(rules: &PodRules) -> PodRules {
    let mut rules = rules.clone();
    for attached in rules.networks.values_mut() {
        let changed = attached.rules.vips().into_iter().map(|(address, vip)| {
            let mut vip = VipRules::clone(vip);
            vip.ports
                .values_mut()
                .for_each(|port| port.affinity = Some(Duration::from_mins(1)));
            (*address, Arc::new(vip))
        });
        attached.rules = Arc::new(changed.collect());
    }
    rules
}

#[test]
fn an_endpoint_change_sends_only_the_chains_of_its_service() {
    let (held, wanted) = (rules(&[2, 3]), rules(&[2, 4]));
    let change = translation(&Delta::between(&held, &wanted), Family::V4);
    assert_eq!(
        (change.set.len(), change.delete.len()),
        (2, 0),
        "one chain for each port: {change:?}"
    );
    assert!(change.set.keys().all(|chain| chain.starts_with("MSP-SVC-")));
}

#[test]
fn a_remaining_endpoint_keeps_its_list_of_clients() {
    let (held, wanted) = (with_affinity(&rules(&[2, 3])), with_affinity(&rules(&[2, 4])));
    let change = translation(&Delta::between(&held, &wanted), Family::V4);
    let of_endpoints = change
        .set
        .keys()
        .filter(|chain| chain.starts_with("MSP-SEP-"))
        .count();
    assert_eq!(
        (of_endpoints, change.delete.len()),
        (2, 2),
        "the new one's and the old one's, for each port: {change:?}"
    );
}

#[test]
fn the_chain_of_the_last_endpoint_is_deleted_with_it() {
    let (held, wanted) = (rules(&[2]), rules(&[]));
    let change = translation(&Delta::between(&held, &wanted), Family::V4);
    assert_eq!(
        change.set,
        Chains::from([(Table::Nat.root(), vec![rejected_udp::jump()])])
    );
    assert_eq!(
        change.delete.len(),
        4,
        "two ports, and the way to them: {change:?}"
    );
}

#[test]
fn a_family_without_a_source_is_not_translated() {
    let mut rules = rules(&[2]);
    rules
        .networks
        .values_mut()
        .for_each(|attached| attached.ipv6 = None);
    let chains = whole(&Delta::from_nothing(&rules), Table::Nat, Family::V6);
    let mut untranslated = Table::Nat.roots(Family::V6, true);
    untranslated.extend(rejected_udp::whole(&vips(&rules, Family::V6), Family::V6));
    assert_eq!(chains, untranslated);
}

#[test]
fn a_renamed_port_changes_only_the_comment() {
    let (held, mut wanted) = (rules(&[2]), rules(&[2]));
    for attached in wanted.networks.values_mut() {
        let changed = attached.rules.vips().into_iter().map(|(address, vip)| {
            let mut vip = VipRules::clone(vip);
            vip.ports
                .values_mut()
                .for_each(|port| port.name = "other".to_owned());
            (*address, Arc::new(vip))
        });
        attached.rules = Arc::new(changed.collect());
    }
    let delta = Delta::between(&held, &wanted);
    assert!(delta.ports.is_empty());
    let change = translation(&delta, Family::V4);
    assert!(
        change
            .set
            .values()
            .flatten()
            .any(|rule| rule.contains("web/nginx:other")),
        "{change:?}"
    );
    assert!(
        change.set.keys().all(|chain| !chain.starts_with("MSP-SVC-")),
        "{change:?}"
    );
}

#[rstest]
#[case::rule_added("-A MSP-SERVICES -j RETURN", "chain MSP-SERVICES was changed")]
#[case::chain_added("-N MSP-EXTRA", "chain MSP-EXTRA was changed")]
#[case::to_somewhere_else(
    "-A MSP-SVC-X -p tcp -j DNAT --to-destination 10.9.9.9:1",
    "chain MSP-SVC-X was changed"
)]
fn an_added_rule_or_chain_is_drift(#[case] line: &str, #[case] want: &str) {
    let rules = rules(&[2]);
    let delta = Delta::from_nothing(&rules);
    let mut text = listing(Table::Nat, &whole(&delta, Table::Nat, Family::V4));
    text.push_str(line);
    let mut dump = KernelState::default();
    let filter = listing(Table::Filter, &whole(&delta, Table::Filter, Family::V4));
    let filter = read::Listing::parse(Table::Filter, true, &filter);
    read::read(
        &filter,
        &read::Listing::parse(Table::Nat, true, &text),
        Family::V4,
        true,
        &mut dump,
    );
    assert!(
        dump.damage.iter().any(|damage| damage.contains(want)),
        "{:?}",
        dump.damage
    );
}

#[test]
fn a_foreign_rule_before_a_translation_jump_is_drift() {
    for (table, is_damage) in [(Table::Nat, true), (Table::Filter, false)] {
        let (hook, rule) = table.jumps(true).swap_remove(0);
        let text = format!("-A {hook} -j OTHERS\n-A {hook} {rule}\n");
        let listing = read::Listing::parse(table, true, &text);
        assert_eq!(listing.late_jumps.contains(&(hook, rule.clone())), is_damage);
        assert!(!listing.missing_jumps.contains(&(hook, rule)));
    }
}

#[test]
fn a_late_jump_is_deleted_before_it_is_inserted_first() {
    let change = Change {
        late_jumps: Table::Nat.jumps(false),
        ..Change::default()
    };
    assert_eq!(
        change.text(Table::Nat),
        "*nat\n-D OUTPUT -j MSP-SERVICES\n-D POSTROUTING -m conntrack --ctstate DNAT -j MSP-SOURCES\n-I OUTPUT 1 -j MSP-SERVICES\n-I POSTROUTING 1 -m conntrack --ctstate DNAT -j MSP-SOURCES\nCOMMIT\n"
    );
    assert!(!change.is_empty());
}

#[test]
fn a_removed_rule_is_drift() {
    let rules = with_affinity(&rules(&[2, 3]));
    let delta = Delta::from_nothing(&rules);
    for table in Table::ALL {
        let whole_listing = |table| listing(table, &whole(&delta, table, Family::V4));
        let lines: Vec<String> = whole_listing(table).lines().map(str::to_owned).collect();
        for left_out in
            (0..lines.len()).filter(|i| lines[*i].starts_with("-A ") && !lines[*i].contains("USER"))
        {
            let kept = lines.iter().enumerate().filter(|(i, _)| *i != left_out);
            let text: String = kept.flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
            let read = |of: Table| {
                let text = if of == table {
                    text.clone()
                } else {
                    whole_listing(of)
                };
                read::Listing::parse(of, true, &text)
            };
            let mut dump = KernelState::default();
            read::read(
                &read(Table::Filter),
                &read(Table::Nat),
                Family::V4,
                true,
                &mut dump,
            );
            let vips = vips(&rules, Family::V4);
            let is_seen = !dump.damage.is_empty() || dump.rejected != vips || dump.rejected_udp != vips;
            assert!(is_seen, "without {:?} it reads as {dump:?}", lines[left_out]);
        }
    }
}

proptest! {
    #[test]
    fn a_change_equals_a_full_write(before in prop::collection::vec(1u8..=250, 0..9), after in prop::collection::vec(1u8..=250, 0..9), sticky in any::<(bool, bool)>()) {
        let maybe = |rules: PodRules, sticky: bool| if sticky { with_affinity(&rules) } else { rules };
        let (held, wanted) = (maybe(rules(&before), sticky.0), maybe(rules(&after), sticky.1));
        let delta = Delta::between(&held, &wanted);
        for family in Family::ALL {
            let nat = |rules| whole(&Delta::from_nothing(rules), Table::Nat, family);
            prop_assert_eq!(written(nat(&held), translation(&delta, family)), nat(&wanted));
        }
    }

    #[test]
    fn rendered_rules_parse_to_the_same_state(hosts in prop::collection::vec(1u8..=250, 0..9), sticky in any::<bool>()) {
        let rules = if sticky { with_affinity(&rules(&hosts)) } else { rules(&hosts) };
        prop_assert_eq!(read_back(&rules), rules.kernel_state());
    }
}
