//! IPv6 duplicate address detection: the kernel does not use a tentative address as a source.

use super::fake_node::until;
use super::fixture::Fixture;
use super::matrix::{BackendKind, Case, for_every_backend};
use super::objects::Service;
use super::packet_capture::Capture;
use super::testbed::address;
use super::traffic::Outcome;
use api::Family;
use rules::Protocol::{Tcp, Udp};

for_every_backend![address_is_used_only_after_duplicate_address_detection];

fn address_is_used_only_after_duplicate_address_detection(kind: BackendKind) {
    let family = Family::V6;
    let mut fixture = Fixture::new(Case { kind, family }, &[2]);
    let source = address(1, family, 7);
    // One solicitation per second, for several seconds.
    fixture.client.sh(&format!(
        "sysctl -qw net.ipv6.conf.net1.dad_transmits=8
         ip addr del {source}/64 dev net1; ip addr add {source}/64 dev net1"
    ));
    let web = Service::new("web", 10).ready(&[2]);
    let capture = Capture::start(&fixture.client);
    let applied = fixture.sync_to(&[&web]);
    let (absent, rejected) = (
        applied.absent,
        [(Tcp, 80), (Udp, 53)].map(|(protocol, port)| fixture.probe(protocol, fixture.at(&web, port))),
    );
    let is_tentative = || {
        fixture
            .client
            .sh("ip -6 addr show dev net1")
            .contains("tentative")
    };
    assert!(is_tentative(), "the test needs a tentative address");
    assert_eq!(
        absent.iter().map(|source| source.address).collect::<Vec<_>>(),
        [source]
    );
    assert_eq!(rejected, [Outcome::Rejected, Outcome::Rejected]);
    assert_eq!(capture.frames_with(web.vip(family)), Vec::<Vec<u8>>::new());
    until("duplicate address detection finished", || !is_tentative());
    assert_eq!(fixture.sync().absent, []);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        let outcome = fixture.probe(protocol, fixture.at(&web, port));
        assert!(
            matches!(outcome, Outcome::Answered(2, seen) if seen == source),
            "{outcome:?}"
        );
    }
}
