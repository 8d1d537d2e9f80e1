//! Many Services, and Services with many endpoints, in one namespace.

use super::echo_server::Server;
use super::matrix::{BackendKind, for_every_backend};
use super::testbed::{Pod, Testbed};
use super::traffic::{Outcome, probe_repeatedly};
use api::{NetworkRef, ObjectName};
use proxy::backend::KnownRules;
use rules::{AttachedNetwork, PodRules, Port, PortRules, Protocol, Source, VipRules};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

for_every_backend![ten_thousand_services_fit_into_one_namespace_and_change_individually];

const PORT: Port = Port {
    protocol: Protocol::Tcp,
    number: 80,
};

/// Services with VIPs from 172.31.0.0 on, each with these endpoints on TCP port 80.
fn services(client: &Pod, endpoints: &[BTreeSet<SocketAddr>]) -> PodRules {
    let vips = endpoints.iter().enumerate().map(|(number, endpoints)| {
        let service = ObjectName {
            namespace: "web".to_owned(),
            name: format!("s{number}"),
        };
        let port = PortRules {
            endpoints: endpoints.iter().copied().collect(),
            ..PortRules::default()
        };
        let ports = BTreeMap::from([(PORT, Box::new(port))]);
        (vip(number), Arc::new(VipRules { service, ports }))
    });
    let attached = AttachedNetwork {
        ipv4: Some(Source {
            interface: "net1".to_owned(),
            address: client.address(),
        }),
        ipv6: None,
        rules: Arc::new(vips.collect()),
    };
    let network = NetworkRef::parse("web/macvlan1", "web").unwrap();
    PodRules {
        networks: BTreeMap::from([(network, attached)]),
    }
}

fn vip(number: usize) -> IpAddr {
    Ipv4Addr::from(0xac1f_0000 + u32::try_from(number).unwrap()).into()
}

fn at(number: usize) -> SocketAddr {
    SocketAddr::new(vip(number), PORT.number)
}

fn endpoints_on(hosts: &[u8]) -> BTreeSet<SocketAddr> {
    let of = |host: &u8| SocketAddr::from(([10, 1, 0, *host], 8080));
    hosts.iter().map(of).collect()
}

fn ten_thousand_services_fit_into_one_namespace_and_change_individually(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3, 4].map(|host| Server::start(&testbed.pod(host)));
    let timed = |what: &str, held: KnownRules<PodRules>, rules: &PodRules| {
        let began = Instant::now();
        let applied = client.apply(kind, &held, rules);
        println!("{kind:?}, {what}: {:?}", began.elapsed());
        applied
    };
    let responding_hosts = |number| -> Vec<u8> {
        let outcomes = probe_repeatedly(&client, Protocol::Tcp, at(number), 30);
        outcomes.keys().map(Outcome::host).collect()
    };
    let mut endpoints = vec![endpoints_on(&[2, 3, 4]); 10_000];
    let rules = services(&client, &endpoints);
    let held = timed("fill", KnownRules::Nothing, &rules).rules;
    assert_eq!(
        (responding_hosts(0), responding_hosts(9_999)),
        (vec![2, 3, 4], vec![2, 3, 4])
    );
    endpoints[9_999] = endpoints_on(&[3]);
    let changed = services(&client, &endpoints);
    let held = timed("one change", KnownRules::Exactly(held), &changed).rules;
    assert_eq!(
        (responding_hosts(0), responding_hosts(9_999)),
        (vec![2, 3, 4], vec![3])
    );
    assert!(!timed("adoption", KnownRules::Unknown, &changed).written);
    endpoints.truncate(1);
    timed(
        "removal",
        KnownRules::Exactly(held),
        &services(&client, &endpoints),
    );
    assert_eq!(responding_hosts(0), [2, 3, 4]);
}

/// Serves every address of 10.1.16.0/20 in this pod; responds with the requested address.
fn serve_many(pod: &Pod) -> TcpListener {
    pod.sh("ip route add local 10.1.16.0/20 dev lo");
    let listener = pod.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let serving = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = serving.accept() {
            let address = stream.local_addr().unwrap().ip().to_string();
            if address == "10.1.0.2" || stream.write_all(address.as_bytes()).is_err() {
                break;
            }
        }
    });
    listener
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn thousand_endpoints_are_balanced_and_can_shrink_to_two() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let server = testbed.pod(2);
    let listener = serve_many(&server);
    let first = |count: u16| -> BTreeSet<SocketAddr> {
        (0..count)
            .map(|n| SocketAddr::from(([10, 1, 16 + n.to_be_bytes()[0], n.to_be_bytes()[1]], 8080)))
            .collect()
    };
    let probe = |times: u32| {
        client.run(|| {
            let mut counts = BTreeMap::<IpAddr, u32>::new();
            for _ in 0..times {
                let mut text = String::new();
                TcpStream::connect(at(0))
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                *counts.entry(text.parse().unwrap()).or_default() += 1;
            }
            counts
        })
    };
    let mut held = KnownRules::Nothing;
    for (count, times) in [(1000, 4000), (999, 500), (65, 1300), (2, 40), (1000, 500)] {
        let rules = services(&client, &[first(count)]);
        held = KnownRules::Exactly(client.apply(BackendKind::Nftables, &held, &rules).rules);
        let counts = probe(times);
        let (each, used) = (
            f64::from(times) / f64::from(count),
            f64::from(u16::try_from(counts.len()).unwrap()),
        );
        let allowed: BTreeSet<IpAddr> = first(count).iter().map(SocketAddr::ip).collect();
        assert!(counts.keys().all(|address| allowed.contains(address)), "{count}");
        // Expected number of endpoints used at least once if all are equally likely, and a bound on the most used one.
        let expected = f64::from(count) * (1.0 - (-each).exp());
        let most = f64::from(*counts.values().max().unwrap());
        assert!(
            (used - expected).abs() <= 0.06 * expected + 1.0,
            "{count}: {used} endpoints used, expected {expected:.0}"
        );
        assert!(
            most <= each + 6.0 * each.sqrt() + 3.0,
            "{count}: one endpoint was used {most} times of {times}"
        );
        assert!(
            !client
                .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
                .written,
            "{count}"
        );
    }
    // Stops the server.
    drop(server.run(|| TcpStream::connect("10.1.0.2:8080")));
    drop(listener);
}
