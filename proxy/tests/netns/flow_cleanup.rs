//! Flows follow the rules under a running driver, which ends them after the rules of all pods are there.

use super::fake_node::{Driver, Runtime, object, uid, until};
use super::matrix::{Kind, for_every_backend};
use super::objects::Service;
use super::testbed::{Bed, Pod};
use super::traffic::{Server, host_behind, udp};
use rules::{Family, Protocol};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

for_every_backend![
    an_open_udp_socket_follows_changes_that_come_one_after_the_other,
    flows_are_ended_before_the_driver_stops,
];

/// A cleanup begins within half a second of the one before; the rest is what a busy machine takes.
const SOON: Duration = Duration::from_secs(5);

fn dns(host: u8) -> Service {
    Service::new("dns", 10)
        .ports(&[(Protocol::Udp, 53, 8080)])
        .ready(&[host])
}

/// A client that is served by host 2, and a socket that was.
struct Scene {
    _servers: [Server; 2],
    socket: UdpSocket,
    driver: Driver,
    _runtime: Arc<Runtime>,
    client: Pod,
    _bed: Bed,
}

impl Scene {
    fn new(kind: Kind) -> Self {
        let (mut bed, runtime) = (Bed::new(), Runtime::new());
        let servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
        let client = bed.pod(7);
        let object = object(&client);
        runtime.ready_in(uid(&object), &client.netns);
        let driver = Driver::start(&runtime, kind, &[&dns(2)], &[&object]);
        until("ready", || driver.is_ready());
        let at = dns(2).at(Family::V4, 53);
        let socket = client.run(|| udp(at)).unwrap();
        assert_eq!(host_behind(&socket, at), Some(2));
        Self {
            _servers: servers,
            socket,
            driver,
            _runtime: runtime,
            client,
            _bed: bed,
        }
    }

    /// Who answers a new flow.
    fn newcomer(&self) -> Option<u8> {
        let at = dns(2).at(Family::V4, 53);
        host_behind(&self.client.run(|| udp(at)).unwrap(), at)
    }

    fn host(&self) -> Option<u8> {
        host_behind(&self.socket, dns(2).at(Family::V4, 53))
    }
}

fn an_open_udp_socket_follows_changes_that_come_one_after_the_other(kind: Kind) {
    let scene = Scene::new(kind);
    for host in [3, 2, 3, 2] {
        scene.driver.service(&dns(host));
        until("new flows are served by the new endpoint", || {
            scene.newcomer() == Some(host)
        });
        let began = Instant::now();
        until("the old flow is, too", || scene.host() == Some(host));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

/// The next driver finds right rules, and does not know what they were before.
fn flows_are_ended_before_the_driver_stops(kind: Kind) {
    let scene = Scene::new(kind);
    scene.driver.service(&dns(3));
    until("it follows", || scene.host() == Some(3));
    // Soon after a cleanup the next one waits.
    scene.driver.service(&dns(2));
    until("new flows are served by the new endpoint", || {
        scene.newcomer() == Some(2)
    });
    let Scene { driver, socket, .. } = scene;
    driver.stop();
    assert_eq!(host_behind(&socket, dns(2).at(Family::V4, 53)), Some(2));
}
