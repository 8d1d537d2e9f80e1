//! Throughput of an established flow, and request latency with several concurrent clients.

use crate::fixture::{ENDPOINTS, Fixture, vip};
use crate::matrix::BackendKind;
use crate::report::{Report, Times, format_duration, ratio};
use crate::testbed::{Pod, Testbed};
use nix::sys::socket::{Shutdown, shutdown};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const SECONDS: u64 = 2;
const CLIENTS: usize = 4;
const SERVICES: usize = 1000;

pub(crate) fn measure(report: &mut Report) {
    report.table(
        &format!("**Under load**, {SERVICES} Services: throughput of one flow for {SECONDS} s, and {CLIENTS} clients that wait for 1-byte responses; through the last Service, and directly without rules."),
        &["backend", "throughput", "direct", "throughput ×", "request median", "p99", "direct median", "p99", "median ×"],
    );
    for kind in BackendKind::ALL {
        let mut fixture = Fixture::new(kind, 1, SERVICES);
        let server = server(&mut fixture.testbed);
        let listener = server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap());
        let accepting = listener.try_clone().unwrap();
        let through = SocketAddr::from((vip(SERVICES - 1), 80));
        let direct = SocketAddr::from((Ipv4Addr::new(10, 1, 0, ENDPOINTS[0]), 8080));
        let figures = std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok((stream, _)) = accepting.accept() {
                    std::thread::spawn(move || respond(stream));
                }
            });
            let of = |fixture: &Fixture, to| fixture.run(0, || (throughput(to), requests(to)));
            // Measured without rules, because connection tracking is part of their cost.
            let directly = of(&fixture, direct);
            fixture.sync();
            let figures = (of(&fixture, through), directly);
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
            figures
        });
        let ((vip_rate, vip_times), (direct_rate, direct_times)) = figures;
        let gigabits = |rate: f64| format!("{rate:.1} Gbit/s");
        report.row([
            kind.backend().name().to_owned(),
            gigabits(vip_rate),
            gigabits(direct_rate),
            format!("{:.2}", vip_rate / direct_rate),
            format_duration(vip_times.median()),
            format_duration(vip_times.p99()),
            format_duration(direct_times.median()),
            format_duration(direct_times.p99()),
            ratio(vip_times.median(), direct_times.median()),
        ]);
    }
}

fn server(testbed: &mut Testbed) -> Pod {
    let server = testbed.pod(ENDPOINTS[0]);
    for host in &ENDPOINTS[1..] {
        server.sh(&format!("ip addr add 10.1.0.{host}/32 dev net1"));
    }
    server
}

/// Returns one byte for each byte `?` and discards everything else.
fn respond(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if buffer[0] == b'?' && stream.write_all(&buffer[..n.min(1)]).is_err() {
            return;
        }
    }
}

/// Throughput in Gbit/s.
fn throughput(to: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    let (block, began) = (vec![0; 256 * 1024], Instant::now());
    let mut blocks = 0_u32;
    while began.elapsed() < Duration::from_secs(SECONDS) {
        stream.write_all(&block).unwrap();
        blocks += 1;
    }
    f64::from(blocks) * 256.0 * 1024.0 * 8.0 / began.elapsed().as_secs_f64() / 1e9
}

fn requests(to: SocketAddr) -> Times {
    let client = || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut times, began, mut byte) = (Vec::new(), Instant::now(), [0]);
        while began.elapsed() < Duration::from_secs(SECONDS) {
            let sent = Instant::now();
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut byte).unwrap();
            times.push(sent.elapsed());
        }
        times
    };
    // Sockets are opened here, because threads spawned by this thread share its namespace.
    let times = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    Times::of(times)
}
