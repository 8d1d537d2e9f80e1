//! Services, ports and endpoints are added, changed and removed.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::traffic::{Flow, Outcome, probe};
use rules::Protocol::{Tcp, Udp};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

for_every_backend_and_family![
    endpoints_can_be_added_and_removed,
    no_connection_fails_while_endpoints_are_replaced,
    services_can_be_added_and_removed_independently,
    recreated_service_is_reached_at_its_new_address_only,
    ports_can_be_added_and_removed_independently,
    service_that_is_no_longer_managed_is_not_programmed,
    established_flows_survive_every_change,
];

fn endpoints_can_be_added_and_removed(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let mut web = Service::new("web", 10);
    // The first, the middle and the last endpoint are removed; one is added back; all are replaced.
    for hosts in [
        &[2, 3, 4][..],
        &[3, 4],
        &[4],
        &[2, 4],
        &[2, 3, 4],
        &[2, 4],
        &[3],
        &[2],
    ] {
        web.endpoints = ready(hosts);
        fixture.sync_to(&[&web]);
        assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), hosts);
    }
}

fn no_connection_fails_while_endpoints_are_replaced(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let mut web = Service::new("web", 10).ready(&[2, 3]);
    fixture.sync_to(&[&web]);
    let (client, at) = (fixture.client.clone(), fixture.at(&web, 80));
    let stop = AtomicBool::new(false);
    let outcomes: BTreeSet<Outcome> = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            client.run(|| {
                let mut outcomes = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    outcomes.insert(probe(Tcp, at));
                }
                outcomes
            })
        });
        for hosts in [&[2, 3, 4][..], &[3, 4], &[4, 2], &[2], &[2, 3, 4], &[3]].repeat(5) {
            web.endpoints = ready(hosts);
            fixture.sync_to(&[&web]);
        }
        stop.store(true, Ordering::Relaxed);
        probing.join().unwrap()
    });
    let lost: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !matches!(outcome, Outcome::Answered(..)))
        .collect();
    assert!(lost.is_empty() && !outcomes.is_empty(), "{lost:?}");
}

fn services_can_be_added_and_removed_independently(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let services = [(10, 2), (11, 3), (12, 4)]
        .map(|(number, host)| Service::new(&format!("web-{number}"), number).ready(&[host]));
    for up in [&[0, 1][..], &[0, 1, 2], &[1, 2], &[2], &[0, 2], &[], &[0, 1, 2]] {
        let wanted: Vec<&Service> = up.iter().map(|n| &services[*n]).collect();
        fixture.sync_to(&wanted);
        for service in wanted {
            let host = service.endpoints[0].host;
            assert_eq!(fixture.probe(Tcp, fixture.at(service, 80)).host(), host);
            assert_eq!(fixture.probe(Udp, fixture.at(service, 53)).host(), host);
        }
    }
    fixture.sync_to(&[]);
    let state = fixture.client.state();
    assert!(
        !state.contains("172.30.0.1") && !state.contains("fd00:96::"),
        "{state}"
    );
}

fn recreated_service_is_reached_at_its_new_address_only(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let old = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&old]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&old, 80)).host(), 2);
    let mut new = Service {
        number: 20,
        uid: "uid-second".to_owned(),
        ..old.clone()
    };
    // The slices of the deleted Service still exist; they do not belong to the new one.
    let mut orphans = old.slice_objects();
    for slice in &mut orphans {
        slice.metadata.name = Some("orphan".to_owned());
    }
    let plan = rules::plan(
        &rules::Settings::default(),
        &[new.object()],
        &orphans,
        "web",
        &fixture.client.status,
    );
    assert!(
        plan.rules
            .vips(case.family)
            .values()
            .all(|(vip, _)| vip.ports.values().all(|port| port.endpoints.is_empty()))
    );
    fixture.sync_to(&[&new]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&new, 80)).host(), 2);
    // The old address is unassigned: routed by the default route and lost.
    assert!(matches!(
        fixture.probe(Udp, fixture.at(&old, 53)),
        Outcome::Lost(_)
    ));
    // The ClusterIP of the deleted Service is reused.
    new.number = 10;
    fixture.sync_to(&[&new]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&new, 80)).host(), 2);
}

fn ports_can_be_added_and_removed_independently(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let all = [(Tcp, 80, 8080), (Tcp, 81, 8081), (Udp, 53, 5353), (Udp, 54, 8080)];
    let web = Service::new("web", 10).ready(&[2]);
    for ports in [&all[..1], &all[..], &all[1..], &all[..2], &all[2..]] {
        let web = Service {
            ports: ports.to_vec(),
            ..web.clone()
        };
        fixture.sync_to(&[&web]);
        for port in all {
            let (protocol, number, target) = port;
            let at = fixture.at(&web, number);
            if ports.contains(&port) {
                assert_eq!(fixture.request(protocol, at).unwrap().port, target);
            } else {
                assert_eq!(fixture.probe(protocol, at), Outcome::Rejected);
            }
        }
    }
}

/// `service.kubernetes.io/service-proxy-name` is removed, `service.kubernetes.io/headless` is added, or the type becomes ExternalName.
fn service_that_is_no_longer_managed_is_not_programmed(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    let before = web.object();
    let mut unlabelled = before.clone();
    unlabelled.metadata.labels = None;
    assert!(
        rules::plan(
            &rules::Settings::default(),
            &[unlabelled],
            &web.slice_objects(),
            "web",
            &fixture.client.status
        )
        .rules
        .is_empty()
    );
    let mut headless = before.clone();
    let labels = headless.metadata.labels.as_mut().unwrap();
    labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    assert!(
        rules::plan(
            &rules::Settings::default(),
            &[headless],
            &web.slice_objects(),
            "web",
            &fixture.client.status
        )
        .rules
        .is_empty()
    );
    web.spec = serde_json::json!({"type": "ExternalName", "externalName": "example.org", "clusterIPs": null});
    fixture.sync_to(&[&web]);
    let state = fixture.client.state();
    assert!(
        !state.contains("172.30.0.10") && !state.contains("fd00:96::a"),
        "{state}"
    );
    web.spec = serde_json::json!({"type": "ClusterIP"});
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
}

fn established_flows_survive_every_change(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    let at = fixture.at(&web, 80);
    let mut flow = fixture.client.run(|| Flow::open(at)).unwrap();
    let others = Service::new("other", 11).ready(&[3]);
    let changes: [&[&Service]; 6] = [
        &[&web, &others],
        &[&web.clone().ready(&[2, 3]), &others],
        &[&web.clone().ready(&[3])],
        &[&web.clone().ready(&[])],
        &[],
        &[&others],
    ];
    for services in changes {
        fixture.sync_to(services);
        flow.echo(b"still there?");
    }
    assert_eq!(flow.host(), 2);
}
