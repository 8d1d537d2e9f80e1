//! Kernel memory used by the rules of a pod.

use crate::Options;
use crate::fixture::Fixture;
use crate::matrix::BackendKind;
use crate::report::Report;
use std::time::Duration;

const SERVICES: usize = 1000;
const PODS: u8 = 8;

pub(crate) fn measure(options: &Options, report: &mut Report) {
    report.table(
        &format!("**Kernel memory** of a pod's namespace, {SERVICES} Services of 3 endpoints, routes included (slab, vmalloc and per-CPU memory of the machine before and after, over {PODS} pods; other work on the machine is included)."),
        &["backend", "per pod"],
    );
    for kind in BackendKind::ALL {
        if !options.is_affordable(kind, usize::from(PODS), SERVICES) {
            continue;
        }
        let mut fixture = Fixture::new(kind, PODS, SERVICES);
        let before = used_kib();
        fixture.sync();
        let grown = used_kib().saturating_sub(before) / fixture.pods();
        report.row([kind.backend().name().to_owned(), format!("{grown} KiB")]);
    }
}

/// Returns used KiB, after freed memory has been reclaimed.
fn used_kib() -> usize {
    std::thread::sleep(Duration::from_secs(2));
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let value = |key: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_default()
    };
    ["Slab", "VmallocUsed", "Percpu"].map(value).iter().sum()
}
