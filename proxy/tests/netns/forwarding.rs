//! Traffic forwarded by a pod: a router pod that masquerades a nested client, as KubeVirt's masquerade binding does.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::Service;
use super::packet_capture::Capture;
use super::testbed::Pod;
use super::traffic::{Outcome, probe_repeatedly};
use api::Family;
use rules::Protocol::{self, Tcp, Udp};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

for_every_backend_and_family![
    forwarded_traffic_is_served,
    forwarded_traffic_keeps_its_source,
    forwarded_traffic_is_rejected_at_once_and_leaks_nothing,
    each_client_behind_a_router_pod_has_its_own_affinity,
];

/// A namespace whose only link leads to the client, which masquerades it.
fn nested_client(fixture: &mut Fixture) -> Pod {
    let nested = fixture.testbed.pod(8);
    nested.sh("ip link del net1; ip link del eth0; ip route flush table main");
    // The kernel sends at most six ICMP errors to a host, then one per second; the test needs all of them.
    fixture
        .client
        .sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    let (iptables, gateway, inside, subnet, forwarding) = match fixture.family {
        Family::V4 => (
            "iptables-nft",
            "192.168.50.1/24",
            "192.168.50.2/24",
            "192.168.50.0/24",
            "net.ipv4.ip_forward",
        ),
        Family::V6 => (
            "ip6tables-nft",
            "fd00:50::1/64",
            "fd00:50::2/64",
            "fd00:50::/64",
            "net.ipv6.conf.all.forwarding",
        ),
    };
    let nodad = if fixture.family == Family::V6 {
        " nodad"
    } else {
        ""
    };
    let netns = &nested.netns;
    fixture.client.sh(&format!(
        "ip link add in0 type veth peer name up0 netns {netns}
         ip addr add {gateway} dev in0{nodad}; ip link set in0 up; sysctl -qw {forwarding}=1
         {iptables} -t nat -A POSTROUTING -s {subnet} -o net1 -j MASQUERADE"
    ));
    let via = gateway.split('/').next().unwrap();
    nested.sh(&format!(
        "ip addr add {inside} dev up0{nodad}; ip link set up0 up; ip route add default via {via}"
    ));
    nested
}

fn outcomes(nested: &Pod, protocol: Protocol, destination: SocketAddr) -> Vec<Outcome> {
    probe_repeatedly(nested, protocol, destination, 5)
        .into_keys()
        .collect()
}

fn forwarded_traffic_is_served(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let nested = nested_client(&mut fixture);
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        for outcome in outcomes(&nested, protocol, fixture.at(&web, port)) {
            assert!(
                matches!(outcome, Outcome::Answered(2, seen) if seen == fixture.source()),
                "{outcome:?}"
            );
        }
    }
}

/// A router pod without masquerading: servers have a route back.
fn forwarded_traffic_keeps_its_source(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let nested = nested_client(&mut fixture);
    let server = fixture.testbed.pod(2);
    fixture.serve(&server);
    fixture.client.link_local("net1");
    let (iptables, inside, subnet) = match case.family {
        Family::V4 => ("iptables-nft", "192.168.50.2", "192.168.50.0/24"),
        Family::V6 => ("ip6tables-nft", "fd00:50::2", "fd00:50::/64"),
    };
    fixture.client.sh(&format!("{iptables} -t nat -F POSTROUTING"));
    server.sh(&format!("ip route add {subnet} via {}", fixture.source()));
    let inside: IpAddr = inside.parse().unwrap();
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        let outcomes = outcomes(&nested, protocol, fixture.at(&web, port));
        assert_eq!(outcomes, [Outcome::Answered(2, inside)], "{protocol}");
    }
}

fn forwarded_traffic_is_rejected_at_once_and_leaks_nothing(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let nested = nested_client(&mut fixture);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    fixture.sync_to(&[&web, &empty]);
    for (service, protocol, port) in [
        (&web, Tcp, 81),
        (&web, Udp, 9),
        (&empty, Tcp, 80),
        (&empty, Udp, 53),
    ] {
        // Captures on the far side of the client, where only outgoing packets are visible.
        let capture = Capture::on(&fixture.client, "net1");
        let rejected = outcomes(&nested, protocol, fixture.at(service, port));
        assert!(rejected.iter().all(Outcome::is_rejected), "{rejected:?}");
        assert_eq!(
            capture.frames_with(service.vip(case.family)),
            Vec::<Vec<u8>>::new()
        );
    }
}

/// Session affinity applies to source addresses, not to the pod that forwards them.
fn each_client_behind_a_router_pod_has_its_own_affinity(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let nested = nested_client(&mut fixture);
    let mut sticky = Service::new("sticky", 10).ready(&[2, 3, 4]);
    sticky.spec = json!({"sessionAffinity": "ClientIP"});
    fixture.sync_to(&[&sticky]);
    let at = fixture.at(&sticky, 80);
    let mut hosts_used = BTreeSet::new();
    // Twelve clients on one endpoint have a probability of 1 in 100,000.
    for n in 10..22 {
        let (address, length) = match case.family {
            Family::V4 => (format!("192.168.50.{n}"), 24),
            Family::V6 => (format!("fd00:50::{n}"), 64),
        };
        let nodad = if case.family == Family::V6 { " nodad" } else { "" };
        nested.sh(&format!(
            "ip addr flush dev up0; ip addr add {address}/{length} dev up0{nodad}"
        ));
        let via = if case.family == Family::V4 {
            "192.168.50.1"
        } else {
            "fd00:50::1"
        };
        nested.sh(&format!("ip route replace default via {via}"));
        let outcomes = outcomes(&nested, Tcp, at);
        assert_eq!(outcomes.len(), 1, "{address}: {outcomes:?}");
        hosts_used.insert(outcomes[0].host());
    }
    assert!(hosts_used.len() > 1, "{hosts_used:?}");
}
