//! The selection of endpoints as a table. The client is on node `n1` in zone `a`.

use super::*;
use crate::Port;
use api::ObjectName;
use rstest::rstest;

/// `host flags…`: `ready`, `serving`, `terminating`, `@node`, `zone=…`, `node=…`.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split_whitespace();
    let host = words.next().unwrap();
    let words: BTreeSet<&str> = words.collect();
    let hints = |prefix: &str| {
        let hints = words.iter().filter_map(|word| word.strip_prefix(prefix));
        hints.map(str::to_owned).collect()
    };
    let ready = words.contains("ready");
    Endpoint {
        addresses: vec![format!("10.1.0.{host}").parse().unwrap()],
        ready,
        serving: ready || words.contains("serving"),
        terminating: words.contains("terminating"),
        node: words
            .iter()
            .find_map(|word| word.strip_prefix('@'))
            .map(str::to_owned),
        zone_hints: hints("zone="),
        node_hints: hints("node="),
    }
}

fn chosen(endpoints: &[&str], protocol: Protocol, is_local: bool) -> Chosen {
    let name = |name: &str| ObjectName {
        namespace: "web".to_owned(),
        name: name.to_owned(),
    };
    let slice = Slice {
        name: name("nginx-multus-a"),
        service: name("nginx"),
        owners: BTreeSet::new(),
        ports: vec![(String::new(), Port { protocol, number: 80 })],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        rejected: Vec::new(),
        triggered: None,
        generation: None,
    };
    let node = Node {
        name: "n1".to_owned(),
        zone: Some("a".to_owned()),
    };
    let choice = Choice {
        node: &node,
        reserved: &ReservedAddresses::default(),
        is_local,
    };
    let vip = "172.30.0.10".parse().unwrap();
    choice.of_port(
        &[&slice],
        Wanted {
            name: "",
            protocol,
            vip,
        },
    )
}

fn hosts<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Vec<u8> {
    let octet = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => unreachable!("the plan is IPv4"),
    };
    addresses.into_iter().map(octet).collect()
}

#[rstest]
#[case::no_hints(&["1 ready", "2 ready"], &[1, 2])]
#[case::zone(&["1 ready zone=a", "2 ready zone=b"], &[1])]
#[case::several_zones(&["1 ready zone=b zone=a", "2 ready zone=b"], &[1])]
#[case::one_without_a_zone_hint(&["1 ready zone=a", "2 ready"], &[1, 2])]
#[case::no_zone_fits(&["1 ready zone=b", "2 ready zone=c"], &[1, 2])]
#[case::an_unready_one_needs_no_hint(&["1 ready zone=a", "2 ready zone=b", "3"], &[1])]
#[case::an_unready_one_does_not_fit(&["1 zone=a", "2 ready zone=b"], &[2])]
#[case::node(&["1 ready node=n1 zone=a", "2 ready node=n2 zone=a"], &[1])]
#[case::no_node_fits_but_a_zone(&["1 ready node=n3 zone=a", "2 ready node=n2 zone=b"], &[1])]
#[case::one_without_a_node_hint(&["1 ready node=n1 zone=a", "2 ready zone=a", "3 ready zone=b"], &[1, 2])]
#[case::terminating_ones_of_any_zone(&["1 serving terminating zone=b", "2 zone=a"], &[1])]
#[case::ready_ones_before_terminating_ones(&["1 serving terminating", "2 ready"], &[2])]
#[case::serving_is_not_enough(&["1 serving"], &[])]
#[case::published(&["1 ready terminating"], &[1])]
#[case::none(&["1", "2 terminating"], &[])]
fn hints_filter_the_ready_ones(#[case] endpoints: &[&str], #[case] want: &[u8]) {
    assert_eq!(hosts(&chosen(endpoints, Protocol::Tcp, false).endpoints), want);
}

#[rstest]
#[case::here(&["1 ready @n1", "2 ready @n2"], &[1])]
#[case::none_here(&["2 ready @n2"], &[])]
#[case::no_node(&["2 ready"], &[])]
#[case::terminating_here(&["1 serving terminating @n1", "2 ready @n2"], &[1])]
#[case::terminating_elsewhere(&["2 serving terminating @n2"], &[])]
#[case::hints_do_not_count(&["1 ready @n1 zone=b", "2 ready @n2 zone=a"], &[1])]
fn local_means_this_node(#[case] endpoints: &[&str], #[case] want: &[u8]) {
    assert_eq!(hosts(&chosen(endpoints, Protocol::Tcp, true).endpoints), want);
}

#[rstest]
#[case::terminating(Protocol::Udp, &["1 ready", "2 serving terminating"], &[2])]
#[case::not_ready_but_serving(Protocol::Sctp, &["1 ready", "2 serving"], &[2])]
#[case::of_another_zone(Protocol::Udp, &["1 ready zone=a", "2 ready zone=b"], &[2])]
#[case::gone(Protocol::Udp, &["1 ready", "2 terminating"], &[])]
#[case::tcp_needs_none(Protocol::Tcp, &["1 ready", "2 serving terminating"], &[])]
fn an_endpoint_that_still_serves_keeps_its_flows(
    #[case] protocol: Protocol,
    #[case] endpoints: &[&str],
    #[case] want: &[u8],
) {
    let chosen = chosen(endpoints, protocol, false);
    assert_eq!(hosts(&chosen.draining), want);
    assert!(chosen.endpoints.to_set().is_disjoint(&chosen.draining));
}
