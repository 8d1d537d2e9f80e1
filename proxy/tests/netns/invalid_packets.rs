//! Segments that connection tracking considers invalid.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::Service;
use super::packet_capture::send_raw;
use super::testbed::{Pod, address};
use super::traffic::Flow;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::net::{IpAddr, SocketAddr};

for_every_backend_and_family![out_of_window_segment_does_not_reset_the_connection];

/// Such a segment is not translated back; without a drop rule the kernel would answer it with a reset.
fn out_of_window_segment_does_not_reset_the_connection(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let server = fixture.testbed.pod(2);
    fixture.serve(&server);
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    let at = fixture.at(&web, 80);
    let mut flow = fixture.client.run(|| Flow::open(at)).unwrap();
    flow.echo(b"first");
    let endpoint = SocketAddr::new(address(1, case.family, 2), 8080);
    let client = SocketAddr::new(fixture.source(), flow.source().port());
    let arrived = || fixture.client.sh("nft list table inet seen");
    fixture.client.sh("nft add table inet seen; nft add chain inet seen input '{ type filter hook input priority 10; }'; nft add rule inet seen input ct state invalid tcp sport 8080 counter");
    // At least one of these sequence numbers is outside the window.
    for quarter in 0..8 {
        send_segment(&server, endpoint, client, quarter << 29);
    }
    assert!(
        !arrived().contains("packets 0 "),
        "the test must be about invalid segments: {}",
        arrived()
    );
    flow.echo(b"second");
}

/// Sends one byte with this sequence number.
fn send_segment(from: &Pod, source: SocketAddr, destination: SocketAddr, sequence: u32) {
    let mut segment = Vec::new();
    segment.extend(source.port().to_be_bytes());
    segment.extend(destination.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    // Five words of header; ACK and PSH.
    segment.extend([5 << 4, 0b1_1000, 0xff, 0xff, 0, 0, 0, 0]);
    segment.push(b'x');
    let sum = checksum(
        &pseudo_header(source.ip(), destination.ip(), segment.len()),
        &segment,
    );
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let family = if destination.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    from.run(|| {
        let socket = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Tcp).unwrap();
        send_raw(&socket, &segment, destination.ip()).unwrap();
    });
}

fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend([0, 6]);
    header.extend(u16::try_from(length).unwrap().to_be_bytes());
    header
}

fn checksum(header: &[u8], segment: &[u8]) -> u16 {
    let words = header.chunks(2).chain(segment.chunks(2));
    let words = words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
