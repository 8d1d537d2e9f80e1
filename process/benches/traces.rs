//! What traces cost the work that is traced: `cargo bench -p process --bench traces`. The table is in docs/admin/traces.md.
//!
//! "nothing" is the same loop without a call: what it takes belongs to no row.

use k8s_openapi::jiff::Timestamp;
use process::traces::{self, Source, Span, TraceArgs, TraceWriter, Traces, attribute};
use std::hint::black_box;
use std::time::{Duration, Instant};

const UID: &str = "5c2b8d1e-0d3c-4a52-9d5e-0f6f9ad3a1b4";

/// Spans that the queue takes before it drops.
const QUEUE: u32 = 1000;

/// Repetitions; the fastest counts.
const RUNS: u32 = 20;

fn main() {
    let now = Timestamp::now();
    let off = start(None, 1_000_000).0;
    let rare = start(Some("http://127.0.0.1:4317"), 0).0;
    println!("| a change of a slice while traces are | costs |\n|---|---|");
    row(
        "nothing",
        fastest(
            10_000_000,
            || (),
            |()| _ = black_box((black_box(UID), black_box(now))),
        ),
    );
    let change = |traces: &Traces| _ = black_box(traces.sampled(black_box(UID), black_box(now)));
    row("off", fastest(10_000_000, || (), |()| change(&off)));
    row(
        "on, and it is not sampled",
        fastest(100_000, || (), |()| change(&rare)),
    );
    let on = || start(Some("http://127.0.0.1:4317"), 1_000_000);
    row(
        "on, and it is sampled",
        fastest(QUEUE, on, |(traces, _)| trace(traces, now)),
    );
}

/// A span as the proxy sends it.
fn trace(traces: &Traces, now: Timestamp) {
    let Some(ids) = traces.sampled(black_box(UID), black_box(now)) else {
        return;
    };
    let mut span = Span::child(ids, "sync_proxy_rules", now);
    span.set(attribute::NAMESPACE, "namespace".to_owned());
    span.set(attribute::SERVICE, "service".to_owned());
    span.set(attribute::SERVICE_UID, UID.to_owned());
    span.set(
        "multusservice.endpointslice.name",
        "service-multus-abcde".to_owned(),
    );
    span.set(attribute::SLICE_GENERATION, 1);
    span.count(attribute::ENDPOINTS, 10);
    span.count(attribute::PODS, 10);
    traces.end(span);
}

/// The writer is not run: the queue is emptied by dropping it.
fn start(endpoint: Option<&str>, sampling_rate_per_million: u32) -> (Traces, TraceWriter) {
    let args = TraceArgs {
        tracing_endpoint: endpoint.map(|endpoint| endpoint.parse().expect("a valid URL")),
        tracing_sampling_rate_per_million: sampling_rate_per_million,
        tracing_ca_file: None,
    };
    let source = Source {
        name: "bench",
        version: "0",
        instance: "bench",
        node: Some("node"),
    };
    traces::start(&args, source)
}

/// Time of a thousand calls in the fastest run.
fn fastest<T>(calls: u32, prepare: impl Fn() -> T, call: impl Fn(&T)) -> Duration {
    let runs = (0..RUNS).map(|_| {
        let prepared = prepare();
        let began = Instant::now();
        (0..calls).for_each(|_| call(black_box(&prepared)));
        began.elapsed() * 1000 / calls
    });
    runs.min().unwrap_or_default()
}

/// `thousand`: time of a thousand calls, so that a fraction of a nanosecond shows.
fn row(name: &str, thousand: Duration) {
    println!("| {name} | {:.2} ns |", thousand.as_secs_f64() * 1e9 / 1000.0);
}
