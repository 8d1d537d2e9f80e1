//! What is not served is refused at once, and no packet to a VIP, nor a question for it, ever leaves the pod.

use super::case::{Case, for_every_backend_and_family};
use super::cluster::{Service, ready, unready};
use super::probe::{Outcome, udp};
use super::scene::Scene;
use super::wire::{Capture, ping};
use nix::errno::Errno;
use rules::Protocol::{self, Sctp, Tcp, Udp};
use std::io::ErrorKind;
use std::net::SocketAddr;

for_every_backend_and_family![
    a_service_without_endpoints_refuses_at_once,
    a_service_whose_endpoints_are_all_unready_refuses_at_once,
    a_port_that_a_service_does_not_have_is_refused_at_once,
    nobody_asks_for_a_vip_on_the_wire,
    a_refused_udp_socket_gets_the_documented_errors,
];

/// By the errno that programs know, every time.
fn assert_refused(scene: &Scene, protocol: Protocol, destination: SocketAddr) {
    for _ in 0..5 {
        assert_eq!(scene.ask(protocol, destination), Outcome::Refused);
        let errno = scene.question(protocol, destination).unwrap_err().kind();
        let as_documented = match protocol {
            Tcp => errno == ErrorKind::ConnectionRefused,
            // From the first send() of the socket.
            Udp | Sctp => errno == ErrorKind::PermissionDenied,
        };
        assert!(as_documented, "{protocol} {destination}: {errno:?}");
    }
}

/// What docs/services.md says of each call. The kernel lets the sender know of a packet that a rule rejects on its way out.
fn a_refused_udp_socket_gets_the_documented_errors(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    scene.sync_to(&[&web, &empty]);
    for at in [scene.at(&web, 9), scene.at(&empty, 53)] {
        let [connected, other] = [(); 2].map(|()| scene.client.run(|| udp(at)).unwrap());
        scene.client.run(|| connected.connect(at)).unwrap();
        for socket in [&connected, &other] {
            // An error is there when the call that causes it returns.
            socket.set_nonblocking(true).unwrap();
        }
        let error = |result: std::io::Result<usize>| result.unwrap_err().kind();
        let mut buffer = [0; 16];
        for _ in 0..2 {
            assert_eq!(error(connected.send(b"who")), ErrorKind::PermissionDenied);
            assert_eq!(error(connected.recv(&mut buffer)), ErrorKind::ConnectionRefused);
        }
        assert_eq!(error(connected.send(b"who")), ErrorKind::PermissionDenied);
        assert_eq!(error(connected.send(b"who")), ErrorKind::ConnectionRefused);
        for _ in 0..2 {
            assert_eq!(error(other.send_to(b"who", at)), ErrorKind::PermissionDenied);
            assert_eq!(error(other.recv(&mut buffer)), ErrorKind::WouldBlock);
        }
    }
}

fn a_service_without_endpoints_refuses_at_once(case: Case) {
    let mut scene = Scene::new(case, &[]);
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080), (Udp, 53, 5353), (Sctp, 3868, 3868)]);
    scene.sync_to(&[&web]);
    for (protocol, port, _) in web.ports.clone() {
        assert_refused(&scene, protocol, scene.at(&web, port));
    }
    // The last endpoint goes.
    web.endpoints = ready(&[2]);
    scene.sync_to(&[&web]);
    web.endpoints.clear();
    scene.sync_to(&[&web]);
    for (protocol, port, _) in web.ports.clone() {
        assert_refused(&scene, protocol, scene.at(&web, port));
    }
}

fn a_service_whose_endpoints_are_all_unready_refuses_at_once(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = unready(&[2]);
    scene.sync_to(&[&web]);
    assert_refused(&scene, Tcp, scene.at(&web, 80));
    assert_refused(&scene, Udp, scene.at(&web, 53));
}

fn a_port_that_a_service_does_not_have_is_refused_at_once(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    scene.sync_to(&[&web]);
    // The port of another protocol, the target port, and ports of nobody.
    for (protocol, port) in [
        (Udp, 80),
        (Tcp, 53),
        (Tcp, 8080),
        (Udp, 5353),
        (Tcp, 81),
        (Udp, 9),
        (Sctp, 80),
    ] {
        assert_refused(&scene, protocol, scene.at(&web, port));
    }
    assert_eq!(scene.ask(Tcp, scene.at(&web, 80)).host(), 2);
}

fn nobody_asks_for_a_vip_on_the_wire(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    let ask_everything = |scene: &Scene, service: &Service| {
        let ports = [(Tcp, 80), (Tcp, 81), (Udp, 53), (Udp, 9), (Sctp, 9)];
        scene.client.run(|| {
            for (protocol, port) in ports {
                super::probe::ask(protocol, scene.at(service, port));
            }
            // Of a protocol without ports, too.
            ping(service.vip(scene.family))
        })
    };
    let capture = Capture::start(&scene.client);
    scene.client.run(|| ping(web.vip(case.family))).unwrap();
    assert!(
        !capture.naming(web.vip(case.family)).is_empty(),
        "without rules the capture must see the VIP, or it proves nothing"
    );
    scene.sync_to(&[&web, &empty]);
    for service in [&web, &empty] {
        let capture = Capture::start(&scene.client);
        assert_eq!(ask_everything(&scene, service), Err(Errno::EPERM));
        assert_eq!(capture.naming(service.vip(case.family)), Vec::<Vec<u8>>::new());
    }
}
