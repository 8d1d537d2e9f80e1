//! Requests that do not fit into a packet.

use super::fixture::Scene;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::Service;
use super::traffic::{Flow, PATIENCE, udp};

for_every_backend_and_family![
    a_request_of_64_kib_and_its_answer_arrive,
    datagrams_in_fragments_and_their_answers_arrive,
];

fn a_request_of_64_kib_and_its_answer_arrive(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let web = Service::new("web", 10).ready(&[2, 3]);
    scene.sync_to(&[&web]);
    let at = scene.at(&web, 80);
    let request: Vec<u8> = (0..65_536_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    for _ in 0..5 {
        scene.client.run(|| Flow::open(at).unwrap().echo(&request));
    }
}

fn datagrams_in_fragments_and_their_answers_arrive(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let web = Service::new("web", 10).ready(&[2, 3]);
    scene.sync_to(&[&web]);
    let at = scene.at(&web, 53);
    // Just over one packet, several, and as large as UDP goes over both families.
    for size in [1473, 8000, 65_507] {
        scene.client.run(|| {
            let socket = udp(at).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&vec![b'?'; size], at).unwrap();
            let mut answer = vec![0; 65_536];
            let (n, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((n, from), (size, at));
        });
    }
}
