//! Deletion of stale flows by a running driver, which follows the rule updates of all pods.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::Service;
use super::testbed::{Pod, Testbed};
use super::traffic::{Server, responding_host, udp};
use api::Family;
use rules::Protocol;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

for_every_backend![
    open_udp_socket_follows_consecutive_endpoint_changes,
    pending_flow_cleanup_runs_before_the_driver_stops,
];

/// Cleanups start at most half a second apart; the rest is margin for a shared machine.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

fn dns(host: u8) -> Service {
    Service::new("dns", 10)
        .ports(&[(Protocol::Udp, 53, 8080)])
        .ready(&[host])
}

/// A client served by host 2, and an open socket with a flow to it.
struct Fixture {
    _servers: [Server; 2],
    socket: UdpSocket,
    driver: Driver,
    _runtime: Arc<FakeRuntime>,
    client: Pod,
    _testbed: Testbed,
}

impl Fixture {
    fn new(kind: BackendKind) -> Self {
        let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
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

    /// Host that a new flow reaches.
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

/// The next driver finds correct rules and does not know the previous ones.
fn pending_flow_cleanup_runs_before_the_driver_stops(kind: BackendKind) {
    let fixture = Fixture::new(kind);
    fixture.driver.service(&dns(3));
    until("the old flow is served by the new endpoint", || {
        fixture.host() == Some(3)
    });
    // This cleanup is delayed, because another one ran just before.
    fixture.driver.service(&dns(2));
    until("new flows are served by the new endpoint", || {
        fixture.new_flow_host() == Some(2)
    });
    let Fixture { driver, socket, .. } = fixture;
    driver.stop();
    assert_eq!(responding_host(&socket, dns(2).at(Family::V4, 53)), Some(2));
}
