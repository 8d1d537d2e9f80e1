//! Latency of a TCP connection through a VIP.

use crate::Options;
use crate::fixture::{ENDPOINTS, Fixture, vip};
use crate::matrix::BackendKind;
use crate::report::{Report, Times, format_duration, ratio};
use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt::Linger};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Runs a server pod that has all endpoint addresses, accepts connections and closes them.
pub(crate) fn with_server<T>(fixture: &mut Fixture, work: impl FnOnce(&mut Fixture) -> T) -> T {
    let server = fixture.testbed.pod(ENDPOINTS[0]);
    for host in &ENDPOINTS[1..] {
        server.sh(&format!("ip addr add 10.1.0.{host}/32 dev net1"));
    }
    let listener = server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap());
    let accepting = listener.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || while accepting.accept().is_ok() {});
        let done = work(fixture);
        // Unblocks accept().
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        done
    })
}

/// Times `n` calls of `connect()` from the namespace of the calling thread.
fn connects(to: SocketAddr, n: usize) -> Times {
    let one = |_| {
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
        let took = began.elapsed();
        // Closes by RST, so that no port stays in TIME_WAIT.
        setsockopt(
            &stream,
            Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )
        .unwrap();
        took
    };
    Times::of((0..n).map(one).collect())
}

pub(crate) fn measure(options: &Options, report: &mut Report) {
    report.table(
        "**connect()** from a pod to the first and the last Service, and directly to an endpoint without rules (minimum / median). Ratios compare minima with the direct connection.",
        &["backend", "Services", "direct", "first", "last", "first ×", "last ×"],
    );
    for kind in BackendKind::ALL {
        for services in options.services.clone() {
            if !options.is_affordable(kind, 1, services) {
                continue;
            }
            let mut fixture = Fixture::new(kind, 1, services);
            let n = options.connections;
            let (direct, first, last) = with_server(&mut fixture, |fixture| {
                let to = |fixture: &Fixture, ip: Ipv4Addr, port: u16| {
                    fixture.run(0, || connects(SocketAddr::from((ip, port)), n))
                };
                // Measured without rules, because connection tracking is part of their cost.
                let direct = to(fixture, Ipv4Addr::new(10, 1, 0, ENDPOINTS[0]), 8080);
                fixture.sync();
                (
                    direct,
                    to(fixture, vip(0), 80),
                    to(fixture, vip(services - 1), 80),
                )
            });
            let both = |times: &Times| {
                format!(
                    "{} / {}",
                    format_duration(times.min()),
                    format_duration(times.median())
                )
            };
            report.row([
                kind.backend().name().to_owned(),
                services.to_string(),
                both(&direct),
                both(&first),
                both(&last),
                ratio(first.min(), direct.min()),
                ratio(last.min(), direct.min()),
            ]);
        }
    }
}
