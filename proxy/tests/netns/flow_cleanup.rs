//! Flows follow the rules under a running driver, which ends them after the rules of all pods are there.

use super::fake_node::{Driver, Runtime, object, uid, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::Service;
use super::testbed::{Pod, Testbed};
use super::traffic::{Server, responding_host, udp};
use rules::{Family, Protocol};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

for_every_backend![
    open_udp_socket_follows_consecutive_endpoint_changes,
    pending_flow_cleanup_runs_before_the_driver_stops,
];

/// A cleanup begins within half a second of the one before; the rest is what a busy machine takes.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

fn dns(host: u8) -> Service {
    Service::new("dns", 10)
        .ports(&[(Protocol::Udp, 53, 8080)])
        .ready(&[host])
}

/// A client that is served by host 2, and a socket that was.
struct Fixture {
    _servers: [Server; 2],
    socket: UdpSocket,
    driver: Driver,
    _runtime: Arc<Runtime>,
    client: Pod,
    _testbed: Testbed,
}

impl Fixture {
    fn new(kind: BackendKind) -> Self {
        let (mut testbed, runtime) = (Testbed::new(), Runtime::new());
        let servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
        let client = testbed.pod(7);
        let object = object(&client);
        runtime.set_sandbox(uid(&object), &client.netns);
        let driver = Driver::start(&runtime, kind, &[&dns(2)], &[&object]);
        until("ready", || driver.is_ready());
        let at = dns(2).at(Family::V4, 53);
        let socket = client.run(|| udp(at)).unwrap();
        assert_eq!(responding_host(&socket, at), Some(2));
        Self {
            _servers: servers,
            socket,
            driver,
            _runtime: runtime,
            client,
            _testbed: testbed,
        }
    }

    /// Who answers a new flow.
    fn new_flow_host(&self) -> Option<u8> {
        let at = dns(2).at(Family::V4, 53);
        responding_host(&self.client.run(|| udp(at)).unwrap(), at)
    }

    fn host(&self) -> Option<u8> {
        responding_host(&self.socket, dns(2).at(Family::V4, 53))
    }
}

fn open_udp_socket_follows_consecutive_endpoint_changes(kind: BackendKind) {
    let fixture = Fixture::new(kind);
    for host in [3, 2, 3, 2] {
        fixture.driver.service(&dns(host));
        until("new flows are served by the new endpoint", || {
            fixture.new_flow_host() == Some(host)
        });
        let began = Instant::now();
        until("the old flow is served by the new endpoint", || {
            fixture.host() == Some(host)
        });
        assert!(began.elapsed() < CLEANUP_TIMEOUT, "{:?}", began.elapsed());
    }
}

/// The next driver finds right rules, and does not know what they were before.
fn pending_flow_cleanup_runs_before_the_driver_stops(kind: BackendKind) {
    let fixture = Fixture::new(kind);
    fixture.driver.service(&dns(3));
    until("the old flow is served by the new endpoint", || {
        fixture.host() == Some(3)
    });
    // Soon after a cleanup the next one waits.
    fixture.driver.service(&dns(2));
    until("new flows are served by the new endpoint", || {
        fixture.new_flow_host() == Some(2)
    });
    let Fixture { driver, socket, .. } = fixture;
    driver.stop();
    assert_eq!(responding_host(&socket, dns(2).at(Family::V4, 53)), Some(2));
}
