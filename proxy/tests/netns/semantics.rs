//! What a client sees of a Service.

use super::bed::Bed;
use super::cluster::{EMPTY, NGINX, rules};
use super::probe::{Outcome, Server, ask_again, ask_often};
use super::wire::{Capture, assert_agrees, ping};
use proxy::backend::Held;
use proxy::backend::iptables::{Iptables, Variant};
use rstest::rstest;
use rules::Protocol;
use std::net::{IpAddr, SocketAddr, UdpSocket};

fn vip(index: usize, port: u16) -> SocketAddr {
    SocketAddr::new(NGINX[index].parse().unwrap(), port)
}

fn empty(port: u16) -> SocketAddr {
    SocketAddr::new(EMPTY.parse().unwrap(), port)
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn flows_are_balanced_and_leave_with_the_attachments_address(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3, 4].map(|host| Server::start(&bed.pod(host)));
    client.apply(
        Iptables::new(variant),
        &Held::Nothing,
        &rules(&client, &[(2, true), (3, true), (4, true)]),
    );
    let sources: [IpAddr; 2] = ["10.1.0.7".parse().unwrap(), "fd00:1::7".parse().unwrap()];
    for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
        for family in [0, 1] {
            let outcomes = ask_often(&client, protocol, vip(family, port), 300);
            assert_eq!(outcomes.len(), 3, "{protocol} {}: {outcomes:?}", NGINX[family]);
            for (outcome, count) in outcomes {
                // 100 expected, standard deviation 8.2: five of them either way.
                assert!((59..=141).contains(&count), "{outcome:?} {count} times of 300");
                assert!(
                    matches!(outcome, Outcome::Answered(2..=4, seen) if seen == sources[family]),
                    "{outcome:?}"
                );
            }
        }
    }
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn the_kernel_and_trace_agree_and_what_is_not_served_is_refused_at_once(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
    let mut held = Held::Nothing;
    for endpoints in [
        &[(2, true), (3, true)][..],
        &[(2, true), (3, false)],
        &[],
        &[(3, true)],
    ] {
        let rules = rules(&client, endpoints);
        held = Held::Exactly(client.apply(Iptables::new(variant), &held, &rules).rules);
        for (protocol, port) in [
            (Protocol::Tcp, 80),
            (Protocol::Udp, 53),
            (Protocol::Tcp, 81),
            (Protocol::Udp, 80),
            (Protocol::Tcp, 8080),
        ] {
            assert_agrees(&client, &rules, protocol, vip(0, port));
            assert_agrees(&client, &rules, protocol, vip(1, port));
            assert_agrees(&client, &rules, protocol, empty(port));
        }
    }
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn nobody_asks_for_a_vip_on_the_wire(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _server = Server::start(&bed.pod(2));
    let ask_everything = || {
        for address in [NGINX[0], EMPTY] {
            for (protocol, port) in [
                (Protocol::Tcp, 80),
                (Protocol::Tcp, 81),
                (Protocol::Udp, 53),
                (Protocol::Udp, 9),
            ] {
                ask_often(
                    &client,
                    protocol,
                    SocketAddr::new(address.parse().unwrap(), port),
                    1,
                );
            }
        }
        client.run(|| ping(NGINX[0].parse().unwrap()))
    };
    let seen = |address: &str, work: &dyn Fn()| {
        let capture = Capture::start(&client, address);
        work();
        capture.stop(address)
    };
    // Of a protocol without ports, too.
    let ask_and_be_refused = || assert_eq!(ask_everything(), Err(nix::Error::EPERM));
    assert!(
        !seen(NGINX[0], &|| assert!(ask_everything().is_ok())).is_empty(),
        "without rules the capture must see the VIP, or it proves nothing"
    );
    client.apply(
        Iptables::new(variant),
        &Held::Nothing,
        &rules(&client, &[(2, true)]),
    );
    assert_eq!(seen(NGINX[0], &ask_and_be_refused), Vec::<String>::new());
    assert_eq!(seen(EMPTY, &ask_and_be_refused), Vec::<String>::new());
    let ask_ipv6 = || {
        assert!(matches!(
            ask_often(&client, Protocol::Tcp, vip(1, 80), 1).pop_first(),
            Some((Outcome::Answered(2, _), 1))
        ));
    };
    assert_eq!(seen(NGINX[1], &ask_ipv6), Vec::<String>::new());
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn an_unready_endpoint_gets_nothing_until_it_is_ready_again(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
    let mut held = Held::Nothing;
    let mut answering = |endpoints: &[(u8, bool)]| -> Vec<u8> {
        held = Held::Exactly(
            client
                .apply(Iptables::new(variant), &held, &rules(&client, endpoints))
                .rules,
        );
        let outcomes = ask_often(&client, Protocol::Tcp, vip(0, 80), 60).into_keys();
        outcomes
            .map(|outcome| {
                if let Outcome::Answered(host, _) = outcome {
                    host
                } else {
                    panic!("{outcome:?}")
                }
            })
            .collect()
    };
    assert_eq!(answering(&[(2, true), (3, true)]), [2, 3]);
    assert_eq!(answering(&[(2, false), (3, true)]), [3]);
    assert_eq!(answering(&[(2, true), (3, true)]), [2, 3]);
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_pod_reaches_itself_through_the_service(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _server = Server::start(&client);
    let rules = rules(&client, &[(7, true)]);
    client.apply(Iptables::new(variant), &Held::Nothing, &rules);
    assert_agrees(&client, &rules, Protocol::Tcp, vip(0, 80));
    assert_agrees(&client, &rules, Protocol::Udp, vip(1, 53));
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn an_open_udp_socket_follows_its_service(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let backend = Iptables::new(variant);
    // Begun before there are rules: it goes out by the default route and nobody answers. (Not connected: connect() would fix
    // the source address to that of eth0 for the life of the socket.)
    assert!(ask_again(&socket, vip(0, 53)).is_err());
    let mut held = Held::Nothing;
    for (endpoints, want) in [
        (&[(2, true)][..], Some('2')),
        (&[(3, true)], Some('3')),
        (&[], None),
        (&[(2, true)], Some('2')),
    ] {
        let applied = client.apply(backend, &held, &rules(&client, endpoints));
        assert_eq!(applied.conntrack, None);
        held = Held::Exactly(applied.rules);
        let mut answer = ask_again(&socket, vip(0, 53));
        if answer.is_err() {
            // An ICMP error of the time when there was no endpoint is told to whoever sends next.
            answer = ask_again(&socket, vip(0, 53));
        }
        assert_eq!(
            answer.as_ref().ok().and_then(|answer| answer.chars().next()),
            want,
            "{endpoints:?}: {answer:?}"
        );
    }
}

#[rstest]
#[case::nft(Variant::Nft)]
#[case::legacy(Variant::Legacy)]
#[ignore = "needs root and network namespaces: make test-netns"]
fn traffic_forwarded_through_a_pod_is_served_and_refused(#[case] variant: Variant) {
    let mut bed = Bed::new();
    let (router, nested) = (bed.pod(7), bed.pod(8));
    let _server = Server::start(&bed.pod(2));
    // The nested one has nothing but a link to the router, which masquerades it.
    nested.sh("ip link del net1; ip link del eth0");
    router.sh(&format!("ip link add in0 type veth peer name up0 netns {}; ip addr add 192.168.50.1/24 dev in0; ip link set in0 up", nested.netns));
    router.sh("sysctl -qw net.ipv4.ip_forward=1; iptables-nft -t nat -A POSTROUTING -s 192.168.50.0/24 -o net1 -j MASQUERADE");
    nested
        .sh("ip addr add 192.168.50.2/24 dev up0; ip link set up0 up; ip route add default via 192.168.50.1");
    router.apply(
        Iptables::new(variant),
        &Held::Nothing,
        &rules(&router, &[(2, true)]),
    );
    assert_eq!(
        ask_often(&nested, Protocol::Tcp, vip(0, 80), 5)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Answered(2, router.address())]
    );
    assert_eq!(
        ask_often(&nested, Protocol::Tcp, vip(0, 81), 5)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Refused]
    );
    assert_eq!(
        ask_often(&nested, Protocol::Udp, empty(53), 5)
            .into_keys()
            .collect::<Vec<_>>(),
        [Outcome::Refused]
    );
}
