//! Changes that cost more than one endpoint of a few: beside a bare netlink batch that writes as many elements.

use crate::Options;
use crate::bare::Bare;
use crate::case::Kind;
use crate::report::{Report, Times, ratio, show};
use crate::world::{ENDPOINTS, World, far};
use std::time::{Duration, Instant};

/// What changes.
#[derive(Clone, Copy)]
enum Change {
    /// A Service comes, with its slice and route. That it goes again is not measured.
    Service,
    /// An endpoint of a port of this protocol comes or goes.
    Endpoint(&'static str),
    /// One of this many endpoints is replaced by another.
    OneOf(u16),
}

impl Change {
    fn name(self) -> String {
        match self {
            Self::Service => "a Service comes".to_owned(),
            Self::Endpoint(protocol) => format!("an endpoint of a {protocol} port comes or goes"),
            Self::OneOf(count) => format!("one of {count} endpoints is replaced"),
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Endpoint(protocol) => protocol,
            Self::Service | Self::OneOf(_) => "TCP",
        }
    }

    /// Elements written, of which the bare batch writes as many.
    fn elements(self) -> u32 {
        match self {
            // VIP, source address, three endpoints, and their number.
            Self::Service => 6,
            // It, and from one number to the other.
            Self::Endpoint(_) => 3,
            Self::OneOf(_) => 1,
        }
    }
}

/// What changes, and beside how many Services.
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
        "**Beside the limit**: one change until it is in force in every pod (index, plan, apply), and a bare netlink batch of as many elements to each namespace in the same run; CPU of the process and of the programs it runs, of all pods together. Flows to endpoints that are gone are ended afterwards, which is not in it.",
        &["backend", "change", "pods", "Services", "min", "median", "CPU", "bare median", "CPU", "median ×", "CPU ×"],
    );
    for (change, services, all_pods) in ROWS {
        for pods in all_pods {
            let mut bare = Bare::new(*pods, change.elements());
            bare.fill();
            let bare = Cost::of(options, || bare.change(), || {});
            for kind in Kind::ALL {
                // A few changes by programs in a hundred pods take half a minute.
                if !options.affords(kind, usize::from(*pods) * 10, services) {
                    continue;
                }
                let cost = changes(options, kind, change, *pods, services);
                report.row([
                    kind.backend().name().to_owned(),
                    change.name(),
                    pods.to_string(),
                    services.to_string(),
                    show(cost.times.min()),
                    show(cost.times.median()),
                    show(cost.cpu),
                    show(bare.times.median()),
                    show(bare.cpu),
                    ratio(cost.times.median(), bare.times.median()),
                    ratio(cost.cpu, bare.cpu),
                ]);
            }
        }
    }
}

fn changes(options: &Options, kind: Kind, change: Change, pods: u8, services: usize) -> Cost {
    let mut world = World::of_protocol(kind, pods, services, change.protocol());
    let last = services - 1;
    if let Change::OneOf(count) = change {
        world.set_addresses(last, &(0..count).map(far).collect::<Vec<_>>());
    }
    world.sync();
    let world = std::cell::RefCell::new(world);
    let round = std::cell::Cell::new(0_u16);
    let act = || {
        let (mut world, n) = (world.borrow_mut(), round.get());
        round.set(n + 1);
        match change {
            Change::Service => world.create_service(services, &ENDPOINTS),
            Change::Endpoint(_) => world.set_endpoints(last, &ENDPOINTS[..2 + usize::from(n % 2)]),
            Change::OneOf(count) => {
                // The one in the middle is, in turn, one that sorts last and itself.
                let one = if n.is_multiple_of(2) { count + n } else { count / 2 };
                let all = (0..count).map(|i| far(if i == count / 2 { one } else { i }));
                world.set_addresses(last, &all.collect::<Vec<_>>());
            }
        }
        world.sync();
    };
    let undo = || {
        if let Change::Service = change {
            let mut world = world.borrow_mut();
            world.delete_service(services);
            world.sync();
        }
    };
    // Until what is made once, such as the set for another number of endpoints, is there.
    for _ in 0..2 {
        act();
        undo();
    }
    Cost::of(options, act, undo)
}

/// What a change takes.
pub(crate) struct Cost {
    pub(crate) times: Times,
    /// Of one.
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

/// Of this process and of those it has waited for.
pub(crate) fn cpu_time() -> Duration {
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let own = Duration::new(
        u64::try_from(own.tv_sec).unwrap(),
        u32::try_from(own.tv_nsec).unwrap(),
    );
    // Behind the name, which may have spaces: fields 16 and 17 of proc(5), in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest
        .split(' ')
        .skip(13)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap());
    own + Duration::from_millis(10 * ticks.sum::<u64>())
}
