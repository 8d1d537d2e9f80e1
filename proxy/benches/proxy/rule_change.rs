//! Time from an endpoint event until the rules of every pod are updated.

use crate::Options;
use crate::fixture::{ENDPOINTS, Fixture};
use crate::legacy_proxy::LegacyProxy;
use crate::matrix::BackendKind;
use crate::report::{Report, Times, format_duration, ratio};
use crate::testbed::Testbed;
use proxy::netns::Netns;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Results of the legacy proxy's model by variant, pods and Services.
type Baseline = BTreeMap<(&'static str, usize, usize), ModelResult>;

/// Result of the model.
#[derive(Clone, Copy)]
struct ModelResult {
    fill: Duration,
    median: Duration,
    /// Scaled from fewer pods, because the legacy proxy visits pods one by one.
    is_extrapolated: bool,
}

impl ModelResult {
    fn times(self, pods: usize, than: usize) -> Self {
        let of = |time: Duration| {
            time.mul_f64(f64::from(u32::try_from(pods).unwrap()) / f64::from(u32::try_from(than).unwrap()))
        };
        Self {
            fill: of(self.fill),
            median: of(self.median),
            is_extrapolated: true,
        }
    }

    fn ratio(self, of: impl Fn(Self) -> Duration, one: Duration) -> String {
        let mark = if self.is_extrapolated { "~" } else { "" };
        format!("{mark}{}", ratio(of(self), one))
    }
}

/// Returns the result of the same run; for more pods than were measured, extrapolates from the largest measurement.
fn model_result(
    baseline: &Baseline,
    variant: &'static str,
    pods: usize,
    services: usize,
) -> Option<ModelResult> {
    let measured = baseline.range((variant, 0, 0)..=(variant, pods, usize::MAX));
    let same = measured.rev().find(|((_, _, of), _)| *of == services);
    let ((_, most, _), found) = same?;
    Some(if *most == pods {
        *found
    } else {
        found.times(pods, *most)
    })
}

pub(crate) fn measure(options: &Options, report: &mut Report) {
    let baseline = measure_legacy_proxy(options, report);
    report.table(
        "**Rule change**: one endpoint of the last Service is added or removed, until the rules of every pod are updated (index, plan, apply). `×` is the ratio of the legacy proxy's model to this proxy, by medians; `~` marks values extrapolated from fewer pods, because the legacy proxy visits pods one by one.",
        &["backend", "pods", "Services", "min", "median", "p99", "× legacy", "× nft"],
    );
    let mut fills = Vec::new();
    for kind in BackendKind::ALL {
        for (pods, services) in sizes(options) {
            if options.is_affordable(kind, usize::from(pods), services) {
                let (times, fill) = changes(options, kind, pods, services);
                let than = |variant| {
                    let legacy_proxy = model_result(&baseline, variant, usize::from(pods), services);
                    legacy_proxy.map_or_else(String::new, |legacy_proxy| {
                        legacy_proxy.ratio(|of| of.median, times.median())
                    })
                };
                report.row([
                    kind.backend().name().to_owned(),
                    pods.to_string(),
                    services.to_string(),
                    format_duration(times.min()),
                    format_duration(times.median()),
                    format_duration(times.p99()),
                    than("legacy"),
                    than("nft"),
                ]);
                fills.push((kind, pods, services, fill));
            }
        }
    }
    report.table(
        "**Cold fill**: all rules and routes of empty pods, once. `×` as above; the model has no routes.",
        &["backend", "pods", "Services", "time", "× legacy", "× nft"],
    );
    for (kind, pods, services, fill) in fills {
        let than = |variant| {
            let legacy_proxy = model_result(&baseline, variant, usize::from(pods), services);
            legacy_proxy.map_or_else(String::new, |legacy_proxy| legacy_proxy.ratio(|of| of.fill, fill))
        };
        report.row([
            kind.backend().name().to_owned(),
            pods.to_string(),
            services.to_string(),
            format_duration(fill),
            than("legacy"),
            than("nft"),
        ]);
    }
}

fn sizes(options: &Options) -> impl Iterator<Item = (u8, usize)> {
    let of = |services: &usize| {
        options
            .pods
            .iter()
            .map(|pods| (*pods, *services))
            .collect::<Vec<_>>()
    };
    options.services.iter().flat_map(of)
}

fn changes(options: &Options, kind: BackendKind, pods: u8, services: usize) -> (Times, Duration) {
    let mut fixture = Fixture::new(kind, pods, services);
    let began = Instant::now();
    fixture.sync();
    let fill = began.elapsed();
    let last = services - 1;
    let mut change = |n: usize| {
        std::thread::sleep(Duration::from_millis(options.pause));
        let began = Instant::now();
        fixture.set_endpoints(last, &ENDPOINTS[..2 + n % 2]);
        fixture.sync();
        began.elapsed()
    };
    let first = change(0);
    let times = (1..=rounds(options, first)).map(change).collect();
    (Times::of(times), fill)
}

/// Number of changes to measure, smaller when one change takes long.
fn rounds(options: &Options, one: Duration) -> usize {
    if one * u32::try_from(options.changes).unwrap_or(u32::MAX) < Duration::from_secs(3) {
        options.changes
    } else {
        (options.changes / 10).clamp(3, 10)
    }
}

fn measure_legacy_proxy(options: &Options, report: &mut Report) -> Baseline {
    report.table(
        "**Model of the legacy proxy**: ensure chain, check jump, save, restore everything, for each pod in turn, on every event.",
        &["variant", "pods", "Services", "min", "median"],
    );
    let mut baseline = Baseline::new();
    for variant in ["legacy", "nft"] {
        for (pods, services) in sizes(options) {
            // Saving 10,000 Services by iptables-nft alone takes 15 seconds.
            let limit = if variant == "nft" {
                options.iptables_up_to / 2
            } else {
                options.iptables_up_to
            };
            if usize::from(pods) * services > limit {
                continue;
            }
            let mut testbed = Testbed::new();
            let pods: Vec<Netns> = (2..=pods + 1).map(|host| testbed.pod(host).open()).collect();
            let (fill, events) = LegacyProxy { variant }.events(&pods, services, 3);
            let times = Times::of(events);
            report.row([
                variant.to_owned(),
                pods.len().to_string(),
                services.to_string(),
                format_duration(times.min()),
                format_duration(times.median()),
            ]);
            let modelled = ModelResult {
                fill,
                median: times.median(),
                is_extrapolated: false,
            };
            baseline.insert((variant, pods.len(), services), modelled);
        }
    }
    baseline
}
