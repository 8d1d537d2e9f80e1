//! Changes larger than one endpoint out of a few, compared with a bare netlink batch that writes the same number of elements.

use crate::Options;
use crate::fixture::{ENDPOINTS, Fixture, far};
use crate::matrix::BackendKind;
use crate::raw_netlink::RawNetlink;
use crate::report::{Report, Times, format_duration, ratio};
use std::time::{Duration, Instant};

/// The measured change.
#[derive(Clone, Copy)]
enum Change {
    /// A Service is added, with its slice and route. Its deletion is not measured.
    Service,
    /// An endpoint of a port of this protocol is added or removed.
    Endpoint(&'static str),
    /// One of this many endpoints is replaced.
    OneOf(u16),
}

impl Change {
    fn name(self) -> String {
        match self {
            Self::Service => "a Service is added".to_owned(),
            Self::Endpoint(protocol) => format!("an endpoint of a {protocol} port is added or removed"),
            Self::OneOf(count) => format!("one of {count} endpoints is replaced"),
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Endpoint(protocol) => protocol,
            Self::Service | Self::OneOf(_) => "TCP",
        }
    }

    /// Number of nftables elements written; the bare batch writes the same number.
    fn elements(self) -> u32 {
        match self {
            // VIP, source address, three endpoints, and the endpoint count.
            Self::Service => 6,
            // The endpoint, and the old and the new endpoint count.
            Self::Endpoint(_) => 3,
            Self::OneOf(_) => 1,
        }
    }
}

/// Measured changes, each with the number of Services and of pods.
const ROWS: [(Change, usize, &[u8]); 6] = [
    (Change::Service, 10, &[10, 100]),
    (Change::Service, 10_000, &[1]),
    (Change::Endpoint("TCP"), 10, &[10, 100]),
    (Change::Endpoint("UDP"), 10, &[10, 100]),
    (Change::OneOf(100), 1, &[1, 10, 100]),
    (Change::OneOf(1000), 1, &[1, 10, 100]),
];

pub(crate) fn measure(options: &Options, report: &mut Report) {
    report.table(
        "**Larger changes**: one change until the rules of every pod are updated (index, plan, apply), compared with a bare netlink batch of the same number of elements to each namespace in the same run. CPU is that of the process and its child programs, for all pods. Deletion of stale flows happens afterwards and is not included.",
        &["backend", "change", "pods", "Services", "min", "median", "CPU", "raw netlink median", "CPU", "median ×", "CPU ×"],
    );
    for (change, services, all_pods) in ROWS {
        for pods in all_pods {
            let mut raw_netlink = RawNetlink::new(*pods, change.elements());
            raw_netlink.fill();
            let raw_netlink = Cost::of(options, || raw_netlink.change(), || {});
            for kind in BackendKind::ALL {
                // A few changes by iptables programs in a hundred pods take half a minute.
                if !options.is_affordable(kind, usize::from(*pods) * 10, services) {
                    continue;
                }
                let cost = changes(options, kind, change, *pods, services);
                report.row([
                    kind.backend().name().to_owned(),
                    change.name(),
                    pods.to_string(),
                    services.to_string(),
                    format_duration(cost.times.min()),
                    format_duration(cost.times.median()),
                    format_duration(cost.cpu),
                    format_duration(raw_netlink.times.median()),
                    format_duration(raw_netlink.cpu),
                    ratio(cost.times.median(), raw_netlink.times.median()),
                    ratio(cost.cpu, raw_netlink.cpu),
                ]);
            }
        }
    }
}

fn changes(options: &Options, kind: BackendKind, change: Change, pods: u8, services: usize) -> Cost {
    let mut fixture = Fixture::of_protocol(kind, pods, services, change.protocol());
    let last = services - 1;
    if let Change::OneOf(count) = change {
        fixture.set_addresses(last, &(0..count).map(far).collect::<Vec<_>>());
    }
    fixture.sync();
    let fixture = std::cell::RefCell::new(fixture);
    let round = std::cell::Cell::new(0_u16);
    let act = || {
        let (mut fixture, n) = (fixture.borrow_mut(), round.get());
        round.set(n + 1);
        match change {
            Change::Service => fixture.create_service(services, &ENDPOINTS),
            Change::Endpoint(_) => fixture.set_endpoints(last, &ENDPOINTS[..2 + usize::from(n % 2)]),
            Change::OneOf(count) => {
                // The endpoint in the middle alternates between its own address and one that sorts last.
                let one = if n.is_multiple_of(2) { count + n } else { count / 2 };
                let all = (0..count).map(|i| far(if i == count / 2 { one } else { i }));
                fixture.set_addresses(last, &all.collect::<Vec<_>>());
            }
        }
        fixture.sync();
    };
    let undo = || {
        if let Change::Service = change {
            let mut fixture = fixture.borrow_mut();
            fixture.delete_service(services);
            fixture.sync();
        }
    };
    // Warms up: objects that are created once, such as the set for another number of endpoints, exist afterwards.
    for _ in 0..2 {
        act();
        undo();
    }
    Cost::of(options, act, undo)
}

/// Cost of a change.
pub(crate) struct Cost {
    pub(crate) times: Times,
    /// CPU time per change.
    pub(crate) cpu: Duration,
}

impl Cost {
    pub(crate) fn of(options: &Options, mut act: impl FnMut(), mut undo: impl FnMut()) -> Self {
        let (mut times, mut cpu) = (Vec::new(), Duration::ZERO);
        let deadline = Instant::now() + Duration::from_secs(10);
        while times.len() < options.changes && (times.len() < 3 || Instant::now() < deadline) {
            std::thread::sleep(Duration::from_millis(options.pause));
            let (began, before) = (Instant::now(), cpu_time());
            act();
            times.push(began.elapsed());
            cpu += cpu_time().saturating_sub(before);
            undo();
        }
        let cpu = cpu / u32::try_from(times.len()).unwrap();
        let times = Times::of(times);
        Self { times, cpu }
    }
}

/// CPU time of this process and of the children it has waited for.
pub(crate) fn cpu_time() -> Duration {
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let own = Duration::new(
        u64::try_from(own.tv_sec).unwrap(),
        u32::try_from(own.tv_nsec).unwrap(),
    );
    // The process name may contain spaces, so parsing starts after it: fields 16 and 17 of proc(5), in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest
        .split(' ')
        .skip(13)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap());
    own + Duration::from_millis(10 * ticks.sum::<u64>())
}
