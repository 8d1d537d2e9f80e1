//! Traffic that a pod forwards: a router pod that masquerades what is nested in it, as for KubeVirt's masquerade binding.

use super::bed::Pod;
use super::case::{Case, for_every_backend_and_family};
use super::cluster::Service;
use super::probe::{Outcome, ask_often};
use super::scene::Scene;
use super::wire::Capture;
use rules::Family;
use rules::Protocol::{self, Tcp, Udp};
use std::net::SocketAddr;

for_every_backend_and_family![
    traffic_forwarded_through_a_pod_is_served,
    traffic_forwarded_through_a_pod_is_refused_at_once_and_leaks_nothing,
];

/// A namespace that has nothing but a link to the client, which masquerades it.
fn nest(scene: &mut Scene) -> Pod {
    let nested = scene.bed.pod(8);
    nested.sh("ip link del net1; ip link del eth0; ip route flush table main");
    // The kernel sends a host six ICMP errors, then one a second; here each is to be seen.
    scene
        .client
        .sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
    let (iptables, gateway, inside, subnet, forwarding) = match scene.family {
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
    let nodad = if scene.family == Family::V6 { " nodad" } else { "" };
    let netns = &nested.netns;
    scene.client.sh(&format!(
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
    ask_often(nested, protocol, destination, 5).into_keys().collect()
}

fn traffic_forwarded_through_a_pod_is_served(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let nested = nest(&mut scene);
    let web = Service::new("web", 10).ready(&[2]);
    scene.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        for outcome in outcomes(&nested, protocol, scene.at(&web, port)) {
            assert!(
                matches!(outcome, Outcome::Answered(2, seen) if seen == scene.source()),
                "{outcome:?}"
            );
        }
    }
}

fn traffic_forwarded_through_a_pod_is_refused_at_once_and_leaks_nothing(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let nested = nest(&mut scene);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    scene.sync_to(&[&web, &empty]);
    for (service, protocol, port) in [
        (&web, Tcp, 81),
        (&web, Udp, 9),
        (&empty, Tcp, 80),
        (&empty, Udp, 53),
    ] {
        // On the far side of the client, where only what leaves it is seen.
        let capture = Capture::on(&scene.client, "net1");
        let refused = outcomes(&nested, protocol, scene.at(service, port));
        assert!(refused.iter().all(Outcome::is_refused), "{refused:?}");
        assert_eq!(capture.naming(service.vip(case.family)), Vec::<Vec<u8>>::new());
    }
}
