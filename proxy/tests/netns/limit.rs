//! What one change costs on a node with many pods, through the driver: a measurement, not a test.
//!
//! ```console
//! # cargo test --release -p proxy --test netns -- --ignored --nocapture limit::measure
//! ```

use super::bed::Bed;
use super::case::Kind;
use super::cluster::Service;
use super::crowd::Crowd;
use super::driver::{Driver, Runtime, uid, until};
use rules::Protocol;
use rustix::time::{ClockId, clock_gettime};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const ROUNDS: u8 = 12;

/// A change is over by then, its cleanup too.
const QUIET: Duration = Duration::from_millis(1_500);

const APPLIED: &str = "multus_proxy_netns_apply_duration_seconds_count{backend=\"nftables\"}";

/// CPU time of the driver: the thread that looks is not counted.
fn of_the_driver() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap();
    read(ClockId::ProcessCPUTime) - read(ClockId::ThreadCPUTime)
}

struct Measured {
    took: Vec<Duration>,
    used: Vec<Duration>,
}

impl Measured {
    fn show(mut self, what: &str, pods: usize) {
        self.took.sort_unstable();
        self.used.sort_unstable();
        let (took, used) = (&self.took, &self.used);
        println!(
            "{what}: {pods} pods: rules min {:.1?}, p50 {:.1?}; CPU min {:.1?}, p50 {:.1?}, {:.3} ms a pod",
            took[0],
            took[took.len() / 2],
            used[0],
            used[used.len() / 2],
            used[used.len() / 2].as_secs_f64() * 1e3 / f64::from(u32::try_from(pods).unwrap()),
        );
    }
}

/// From the event until every pod has been written into, and the CPU time until all is quiet.
fn measure_changes(driver: &Driver, pods: usize, mut change: impl FnMut(u8)) -> Measured {
    let (mut took, mut used) = (Vec::new(), Vec::new());
    let idle = {
        let before = of_the_driver();
        std::thread::sleep(QUIET);
        of_the_driver() - before
    };
    for round in 0..ROUNDS {
        let done = driver.metric(APPLIED) + u32::try_from(pods).unwrap();
        let (began, before) = (Instant::now(), of_the_driver());
        change(round);
        while driver.metric(APPLIED) < done {
            std::thread::sleep(Duration::from_micros(200));
        }
        took.push(began.elapsed());
        std::thread::sleep(QUIET.saturating_sub(began.elapsed()));
        used.push((of_the_driver() - before).saturating_sub(idle));
    }
    Measured { took, used }
}

/// Pods with some flows each, as all have that do anything.
fn measure_pods(count: usize) {
    let (bed, runtime) = (Bed::new(), Runtime::new());
    let crowd = Crowd::new(&bed.node(), 0, count);
    let objects: Vec<_> = crowd.pods().map(|(_, object)| object).collect();
    for (pod, object) in crowd.pods() {
        runtime.ready_in(uid(object), &pod.netns);
    }
    let web = |host| {
        Service::new("web", 10)
            .ports(&[(Protocol::Tcp, 80, 8080)])
            .ready(&[host])
    };
    let dns = |host| {
        Service::new("dns", 11)
            .ports(&[(Protocol::Udp, 53, 5353)])
            .ready(&[host])
    };
    let driver = Driver::start(&runtime, Kind::Nftables, &[&web(2), &dns(2)], &objects);
    until("ready", || driver.is_ready());
    until("served", || {
        driver.metric("multus_proxy_netns_programmed") as usize == count
    });
    let _sockets: Vec<_> = crowd
        .pods()
        .map(|(pod, _)| {
            pod.run(|| {
                let sockets = [0; 3].map(|_| UdpSocket::bind("0.0.0.0:0").unwrap());
                for socket in &sockets {
                    let _ = socket.send_to(b"x", "10.1.0.250:9");
                }
                sockets
            })
        })
        .collect();
    std::thread::sleep(3 * QUIET);
    let changes = measure_changes(&driver, count, |round| driver.service(&web(3 + round % 2)));
    changes.show("endpoint of a TCP port", count);
    let changes = measure_changes(&driver, count, |round| driver.service(&dns(3 + round % 2)));
    changes.show("endpoint of a UDP port", count);
    let changes = measure_changes(&driver, count, |round| {
        driver.service(&Service::new(&format!("new{round}"), 20 + round).ready(&[2]));
    });
    changes.show("new Service", count);
}

fn numbered(n: u16) -> Service {
    let mut service = Service::new(&format!("svc{n}"), 10).ports(&[(Protocol::Tcp, 80, 8080)]);
    service.address = Some((n / 200, 10 + n % 200));
    service.ready(&[2])
}

fn measure_services(count: u16) {
    let (mut bed, runtime) = (Bed::new(), Runtime::new());
    let client = bed.pod(7);
    let object = super::driver::object(&client);
    runtime.ready_in(uid(&object), &client.netns);
    let services: Vec<_> = (0..count).map(numbered).collect();
    let services: Vec<_> = services.iter().collect();
    let driver = Driver::start(&runtime, Kind::Nftables, &services, &[&object]);
    until("ready", || driver.is_ready());
    std::thread::sleep(3 * QUIET);
    let changes = measure_changes(&driver, 1, |round| {
        driver.service(&numbered(count + u16::from(round)))
    });
    changes.show(&format!("new Service beside {count}"), 1);
    let changes = measure_changes(&driver, 1, |round| {
        driver.delete_service(&numbered(count + u16::from(round)));
    });
    changes.show(&format!("Service goes beside {count}"), 1);
}

#[test]
#[ignore = "measures, and tests nothing"]
fn measure() {
    for pods in [10, 100] {
        measure_pods(pods);
    }
    measure_services(10_000);
}
