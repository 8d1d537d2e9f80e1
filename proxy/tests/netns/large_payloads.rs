//! Requests and responses larger than a packet.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::Service;
use super::traffic::{Flow, TIMEOUT, udp};

for_every_backend_and_family![tcp_request_of_64_kib_is_echoed, fragmented_datagrams_are_echoed,];

fn tcp_request_of_64_kib_is_echoed(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let web = Service::new("web", 10).ready(&[2, 3]);
    fixture.sync_to(&[&web]);
    let at = fixture.at(&web, 80);
    let request: Vec<u8> = (0..65_536_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    for _ in 0..5 {
        fixture.client.run(|| Flow::open(at).unwrap().echo(&request));
    }
}

fn fragmented_datagrams_are_echoed(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let web = Service::new("web", 10).ready(&[2, 3]);
    fixture.sync_to(&[&web]);
    let at = fixture.at(&web, 53);
    // Just over one packet, several packets, and the maximum of UDP in both families.
    for size in [1473, 8000, 65_507] {
        fixture.client.run(|| {
            let socket = udp(at).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.send_to(&vec![b'?'; size], at).unwrap();
            let mut answer = vec![0; 65_536];
            let (n, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((n, from), (size, at));
        });
    }
}
