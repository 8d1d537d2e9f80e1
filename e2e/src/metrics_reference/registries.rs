//! The registries of the three binaries, with a series of every family.

use controller::metrics::EventReason;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Title of a part, and its registry. Every binary serves the first and one of the others.
pub(crate) fn parts() -> [(&'static str, Registry); 4] {
    let of = |fill: fn(&mut Registry)| {
        let mut registry = Registry::default();
        fill(&mut registry);
        registry
    };
    [
        ("All processes", of(process::metrics::reference)),
        ("Operator", of(operator::metrics::Metrics::reference)),
        ("Controller", of(|registry| _ = controller(registry))),
        ("Proxy", of(|registry| _ = proxy(registry))),
    ]
}

pub(crate) fn controller(registry: &mut Registry) -> controller::metrics::Metrics {
    let metrics = controller::metrics::Metrics::register(registry);
    drop(metrics.events.get_or_create(&EventReason { reason: "" }));
    metrics
}

pub(crate) fn proxy(registry: &mut Registry) -> proxy::metrics::Metrics {
    let metrics = proxy::metrics::Metrics::new(registry);
    metrics.applied("nftables", Duration::ZERO);
    metrics
}
