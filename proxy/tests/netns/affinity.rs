//! Session affinity: a client stays with its endpoint.

use super::case::{Case, for_every_backend_and_family};
use super::cluster::Service;
use super::scene::Scene;
use rules::Protocol::{Tcp, Udp};
use serde_json::json;
use std::time::Duration;

for_every_backend_and_family![
    a_client_stays_with_its_endpoint_until_it_was_silent_for_the_timeout,
    a_client_whose_endpoint_went_gets_another_and_stays_there,
    affinity_is_switched_on_and_off_while_flows_run,
];

fn sticky(hosts: &[u8], seconds: u32) -> Service {
    let mut service = Service::new("sticky", 10).ready(hosts);
    service.spec = json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    });
    service
}

fn a_client_stays_with_its_endpoint_until_it_was_silent_for_the_timeout(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let service = sticky(&[2, 3, 4], 2);
    scene.sync_to(&[&service]);
    let (tcp, udp) = (scene.at(&service, 80), scene.at(&service, 53));
    for (protocol, at) in [(Tcp, tcp), (Udp, udp)] {
        assert_eq!(scene.hosts(protocol, at).len(), 1, "{protocol}");
    }
    // Balanced anew each time: ten times the same of three is a matter of 1 in 20,000.
    let mut met = scene.hosts(Tcp, tcp);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(2200));
        met.push(scene.ask(Tcp, tcp).host());
        met.sort_unstable();
        met.dedup();
        if met.len() > 1 {
            return;
        }
    }
    panic!("after ten timeouts still with {met:?}");
}

fn a_client_whose_endpoint_went_gets_another_and_stays_there(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let mut left = vec![2, 3, 4];
    let service = sticky(&left, 600);
    scene.sync_to(&[&service]);
    let at = scene.at(&service, 80);
    while left.len() > 1 {
        let [host] = scene.hosts(Tcp, at)[..] else {
            panic!("several hosts answer one client");
        };
        // One that the client is not with makes no difference to it.
        let mut fewer = left.clone();
        fewer.remove(usize::from(left[0] == host));
        scene.sync_to(&[&sticky(&fewer, 600)]);
        assert_eq!(scene.hosts(Tcp, at), [host]);
        left.retain(|other| *other != host);
        scene.sync_to(&[&sticky(&left, 600)]);
        let now = scene.hosts(Tcp, at);
        assert!(now.len() == 1 && now[0] != host, "{now:?} after {host} went");
        // What comes back does not take it along.
        scene.sync_to(&[&sticky(&[&left[..], &[host][..]].concat(), 600)]);
        assert_eq!(scene.hosts(Tcp, at), now);
        scene.sync_to(&[&sticky(&left, 600)]);
    }
}

fn affinity_is_switched_on_and_off_while_flows_run(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let plain = Service::new("sticky", 10).ready(&[2, 3, 4]);
    let at = scene.at(&plain, 80);
    for _ in 0..2 {
        scene.sync_to(&[&plain]);
        assert_eq!(scene.hosts(Tcp, at), [2, 3, 4]);
        scene.sync_to(&[&sticky(&[2, 3, 4], 600)]);
        let with = scene.hosts(Tcp, at);
        assert_eq!(with.len(), 1);
        // Another timeout is no reason to forget; neither is it one to mix.
        scene.sync_to(&[&sticky(&[2, 3, 4], 60)]);
        assert_eq!(scene.hosts(Tcp, at).len(), 1);
    }
}
