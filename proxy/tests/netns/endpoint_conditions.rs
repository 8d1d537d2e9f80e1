//! Which endpoints take new flows.

use super::fixture::Scene;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, endpoint, ready, unready};
use rules::Protocol::{Tcp, Udp};
use serde_json::json;

for_every_backend_and_family![
    an_unready_endpoint_gets_nothing_until_it_is_ready_again,
    a_terminating_endpoint_that_serves_is_used_only_while_nobody_is_ready,
    a_terminating_endpoint_that_does_not_serve_is_never_used,
    endpoints_published_although_not_ready_are_reached,
    a_slice_without_conditions_means_ready,
];

fn an_unready_endpoint_gets_nothing_until_it_is_ready_again(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    for (endpoints, answering) in [
        (ready(&[2, 3]), &[2, 3][..]),
        ([unready(&[2]), ready(&[3])].concat(), &[3]),
        (ready(&[2, 3]), &[2, 3]),
    ] {
        web.endpoints = endpoints;
        scene.sync_to(&[&web]);
        assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), answering);
        assert_eq!(scene.hosts(Udp, scene.at(&web, 53)), answering);
    }
}

/// The last pod of a roll-out is not cut off (KEP-1669).
fn a_terminating_endpoint_that_serves_is_used_only_while_nobody_is_ready(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let leaving = endpoint(2, &json!({"ready": false, "serving": true, "terminating": true}));
    let mut web = Service::new("web", 10);
    web.endpoints = [vec![leaving.clone()], unready(&[3])].concat();
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [2]);
    web.endpoints = [vec![leaving], ready(&[3])].concat();
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [3]);
}

fn a_terminating_endpoint_that_does_not_serve_is_never_used(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = vec![endpoint(
        2,
        &json!({"ready": false, "serving": false, "terminating": true}),
    )];
    scene.sync_to(&[&web]);
    assert!(scene.ask(Tcp, scene.at(&web, 80)).is_rejected());
}

/// `publishNotReadyAddresses`: the controller writes them as ready, whatever else they are.
fn endpoints_published_although_not_ready_are_reached(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    web.spec = json!({"publishNotReadyAddresses": true});
    web.endpoints = vec![
        endpoint(2, &json!({"ready": true, "serving": false, "terminating": false})),
        endpoint(3, &json!({"ready": true, "serving": false, "terminating": true})),
    ];
    scene.sync_to(&[&web]);
    assert_eq!(scene.hosts(Tcp, scene.at(&web, 80)), [2, 3]);
}

/// "A nil value should be interpreted as true": so do slices of other controllers look.
fn a_slice_without_conditions_means_ready(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = vec![endpoint(2, &json!({}))];
    scene.sync_to(&[&web]);
    assert_eq!(scene.ask(Tcp, scene.at(&web, 80)).host(), 2);
}
