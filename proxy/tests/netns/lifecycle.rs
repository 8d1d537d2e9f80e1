//! What is written, what is left alone, what is left behind.

use super::bed::{Bed, Pod};
use super::cluster::{NGINX, no_rules, rules};
use super::probe::{Outcome, Server, ask, ask_often};
use proxy::apply::Error;
use proxy::backend::Held;
use proxy::backend::iptables::{Iptables, Variant};
use proxy::netns::Netns;
use rstest::rstest;
use rules::Protocol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn nginx() -> SocketAddr {
    SocketAddr::new(NGINX[0].parse().unwrap(), 80)
}

/// Rules and routes of the pod's owner, in both variants, our jumps' neighbours.
fn install_the_owners_rules(pod: &Pod) {
    for variant in ["nft", "legacy"] {
        pod.sh(&format!(
            "iptables-{variant} -t nat -N OWNERS; iptables-{variant} -t nat -A OUTPUT -p tcp --dport 15001 -j OWNERS
             iptables-{variant} -t nat -A OWNERS -d 192.0.2.1/32 -p tcp -j DNAT --to-destination 192.0.2.2:15006
             iptables-{variant} -A OUTPUT -d 192.0.2.3/32 -j DROP; ip6tables-{variant} -A FORWARD -d fd00:5::1/128 -j DROP"
        ));
    }
    pod.sh("ip route add 192.0.2.0/24 dev net1; ip -6 route add fd00:5::/64 dev net1");
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn cleanup_leaves_the_owners_rules_and_nothing_of_ours(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    install_the_owners_rules(&client);
    let before = client.state();
    let with = rules(&client, &[(2, true), (3, true)]);
    let held = Held::Exactly(client.apply(Iptables::new(variant), &Held::Nothing, &with).rules);
    let owners: Vec<&str> = before.lines().filter(|line| line.starts_with("-A")).collect();
    let during = client.state();
    assert!(during.contains("MSP-") && during.contains("proto 77"), "{during}");
    assert!(owners.iter().all(|rule| during.contains(rule)), "{during}");
    client.apply(Iptables::new(variant), &held, &rules(&client, &[(3, true)]));
    client.clean();
    assert_eq!(client.state(), before);
    client.clean();
    assert_eq!(client.state(), before);
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn cleaning_an_untouched_pod_creates_nothing(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let before = client.state();
    assert!(
        !client
            .apply(Iptables::new(variant), &Held::Unknown, &no_rules())
            .written
    );
    client.clean();
    let tables =
        client.sh("nft list tables; cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names");
    assert_eq!((tables.as_str(), client.state()), ("", before));
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn applying_twice_writes_nothing(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let rules = rules(&client, &[(2, true)]);
    let first = client.apply(Iptables::new(variant), &Held::Nothing, &rules);
    assert!(first.written);
    // The kernel tells of every change of a route or of nftables; a restore of the same legacy table resets its counters.
    let seed = "iptables-legacy -t nat -S >/dev/null; iptables-legacy -t nat -A POSTROUTING -c 7 7 -m comment --comment seed";
    client.sh(seed);
    let monitors = [&["ip", "monitor", "route"][..], &["nft", "monitor"]].map(|monitor| {
        let mut command = client.command();
        command.args(monitor).stdout(Stdio::piped()).spawn().unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..3 {
        assert!(
            !client
                .apply(
                    Iptables::new(variant),
                    &Held::Exactly(first.rules.clone()),
                    &rules
                )
                .written
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    for mut monitor in monitors {
        monitor.kill().unwrap();
        let mut said = String::new();
        monitor.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        monitor.wait().unwrap();
        assert_eq!(said, "");
    }
    assert!(
        client
            .sh("iptables-legacy-save -c -t nat")
            .contains("[7:7] -A POSTROUTING")
    );
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_deleted_service_takes_its_rules_and_routes_along_but_no_live_flow(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _server = Server::start(&bed.pod(2));
    let applied = client.apply(
        Iptables::new(variant),
        &Held::Nothing,
        &rules(&client, &[(2, true)]),
    );
    let mut flow = client.run(|| TcpStream::connect_timeout(&nginx(), Duration::from_secs(2)).unwrap());
    flow.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 64];
    assert!(flow.read(&mut buffer).unwrap() > 0);
    client.apply(Iptables::new(variant), &Held::Exactly(applied.rules), &no_rules());
    let state = client.state();
    assert!(
        !state.contains("MSP-SVC-") && !state.contains("proto 77") && !state.contains(NGINX[0]),
        "{state}"
    );
    for _ in 0..3 {
        flow.write_all(b"still there?").unwrap();
        let n = flow.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"still there?");
    }
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_new_proxy_adopts_what_an_earlier_one_left_without_a_gap(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
    let backend = Iptables::new(variant);
    client.apply(backend, &Held::Nothing, &rules(&client, &[(2, true), (3, true)]));
    // Meanwhile, without a proxy: one endpoint went.
    let wanted = rules(&client, &[(3, true)]);
    let fresh = {
        let mut other = bed.pod(9);
        other.apply(backend, &Held::Nothing, &rules(&other, &[(3, true)]));
        other.host = 7;
        chains(&other)
    };
    let stop = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            client.run(|| {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let outcome = ask(Protocol::Tcp, nginx());
                    if !matches!(outcome, Outcome::Answered(..)) {
                        lost.push(outcome);
                    }
                }
                lost
            })
        });
        for _ in 0..20 {
            client.apply(backend, &Held::Unknown, &wanted);
        }
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert_eq!(lost, []);
    assert_eq!(chains(&client), fresh, "adopted rules differ from fresh ones");
    assert_eq!(
        ask_often(&client, Protocol::Tcp, nginx(), 20)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Answered(3, client.address())]
    );
}

fn chains(pod: &Pod) -> String {
    pod.state()
        .lines()
        .filter(|line| line.contains("MSP-"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn routes_that_went_with_their_link_come_back() {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _server = Server::start(&bed.pod(2));
    let backend = Iptables::probe().unwrap();
    let rules = rules(&client, &[(2, true)]);
    let held = Held::Exactly(client.apply(backend, &Held::Nothing, &rules).rules);
    client.sh("ip link set net1 down; ip link set net1 up; ip addr replace fd00:1::7/64 dev net1 nodad");
    assert!(!client.sh("ip route show proto 77").contains(NGINX[0]));
    assert!(
        !client.apply(backend, &held, &rules).written,
        "only routes were missing"
    );
    assert!(
        client
            .sh("ip route show proto 77")
            .contains("172.30.0.10 dev net1 scope link src 10.1.0.7")
    );
    assert!(
        client
            .sh("ip -6 route show proto 77")
            .contains("fd00:96::a dev net1 src fd00:1::7")
    );
    assert_eq!(
        ask_often(&client, Protocol::Tcp, nginx(), 3)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Answered(2, client.address())]
    );
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_route_of_the_pods_owner_is_left_alone_and_reported() {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    client.sh("ip route add 172.30.0.10/32 dev eth0");
    let applied = client.apply(
        Iptables::probe().unwrap(),
        &Held::Nothing,
        &rules(&client, &[(2, true)]),
    );
    assert_eq!(
        applied
            .foreign_routes
            .into_iter()
            .map(|vip| vip.to_string())
            .collect::<Vec<_>>(),
        [NGINX[0]]
    );
    assert!(client.sh("ip route show 172.30.0.10").contains("dev eth0"));
    assert!(client.sh("ip route show 172.30.0.11").contains("dev net1"));
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn an_address_that_is_not_there_yet_is_refused_until_it_is() {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _server = Server::start(&bed.pod(2));
    let backend = Iptables::probe().unwrap();
    client.sh("ip addr del 10.1.0.7/16 dev net1");
    let rules = rules(&client, &[(2, true)]);
    let applied = client.apply(backend, &Held::Nothing, &rules);
    assert_eq!(
        applied
            .absent
            .iter()
            .map(|source| source.address)
            .collect::<Vec<_>>(),
        [client.address()]
    );
    assert_eq!(
        ask_often(&client, Protocol::Tcp, nginx(), 3)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Refused]
    );
    client.sh("ip addr add 10.1.0.7/16 dev net1");
    assert_eq!(
        client
            .apply(backend, &Held::Exactly(applied.rules), &rules)
            .absent,
        []
    );
    assert_eq!(
        ask_often(&client, Protocol::Tcp, nginx(), 3)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Answered(2, client.address())]
    );
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn the_namespace_of_another_pod_is_not_written_into() {
    let mut bed = Bed::new();
    let (client, other) = (bed.pod(7), bed.pod(8));
    let before = other.state();
    let mistaken = Pod {
        netns: other.netns.clone(),
        host: 7,
    };
    let refused = mistaken.try_apply(
        Iptables::probe().unwrap(),
        &Held::Nothing,
        &rules(&client, &[(2, true)]),
    );
    assert!(matches!(refused, Err(Error::NotThePod)), "{refused:?}");
    assert_eq!(other.state(), before);
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn no_namespace_of_a_dead_pod_is_kept_alive() {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    client.apply(
        Iptables::probe().unwrap(),
        &Held::Nothing,
        &rules(&client, &[(2, true)]),
    );
    let node = bed.node();
    let peer = || {
        Netns::open(format!("/run/netns/{node}").as_ref())
            .unwrap()
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
            .unwrap()
    };
    assert!(peer().contains("v7:"));
    let deleted = std::process::Command::new("ip")
        .args(["netns", "del", &client.netns])
        .status()
        .unwrap();
    assert!(deleted.success());
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !peer().contains("v7:")
    });
    assert!(gone, "the veth peer of a deleted namespace is still there");
}
