//! Tests of ids, sampling and the queue.

use super::exporter::{Error, Export};
use super::queue::{BATCH, QUEUE};
use super::*;
use clap::{Args, Command, FromArgMatches};
use opentelemetry::trace::SpanId;
use rstest::rstest;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

const UID: &str = "5c2b8d1e-0d3c-4a52-9d5e-0f6f9ad3a1b4";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// `printf %s UID/2026-01-02T03:04:05Z | sha256sum`
#[test]
fn ids_are_those_that_a_shell_computes() {
    let ids = ChangeIds::new(UID, at("2026-01-02T03:04:05Z"));
    assert_eq!(ids.trace_id(), "fa25ca7049851dbda821ec6d78bfd112");
    assert_eq!(ids.root.to_string(), "3828ef6477a6e17d");
}

#[test]
fn ids_do_not_depend_on_the_format_of_the_time() {
    let ids = |text| ChangeIds::new(UID, at(text));
    assert_eq!(
        ids("2026-01-02T03:04:05.600Z"),
        ids("2026-01-02T04:04:05.6+01:00")
    );
    assert_ne!(ids("2026-01-02T03:04:05.6Z"), ids("2026-01-02T03:04:05.7Z"));
    assert_ne!(
        ids("2026-01-02T03:04:05Z"),
        ChangeIds::new("other", at("2026-01-02T03:04:05Z"))
    );
}

#[rstest]
#[case::none(0, 0..=0)]
#[case::tenth(100_000, 800..=1200)]
#[case::all(1_000_000, 10_000..=10_000)]
fn the_rate_of_sampled_traces(#[case] per_million: u32, #[case] want: std::ops::RangeInclusive<usize>) {
    let sampled = (0..10_000)
        .filter(|n| {
            ChangeIds::new(&format!("{UID}-{n}"), at("2026-01-02T03:04:05Z")).are_sampled(per_million)
        })
        .count();
    assert!(want.contains(&sampled), "{sampled}");
}

#[test]
fn a_trace_that_is_sampled_at_a_rate_is_sampled_at_every_higher_one() {
    for n in 0..1000 {
        let ids = ChangeIds::new(&n.to_string(), at("2026-01-02T03:04:05Z"));
        let sampled = [1_000, 50_000, 500_000].map(|rate| ids.are_sampled(rate));
        assert!(sampled.is_sorted(), "{sampled:?}");
    }
}

/// Two processes, as controller and proxy are.
#[test]
fn the_spans_of_two_processes_are_one_tree() {
    let (controller, mut controllers) = traces(1_000_000);
    let (proxy, mut proxies) = traces(1_000_000);
    let triggered = at("2026-01-02T03:04:05Z");
    let ids = controller.sampled(UID, triggered).unwrap();
    controller.end(Span::root(ids, "sync_endpointslices", triggered));
    let ids = proxy.sampled(UID, triggered).unwrap();
    proxy.end(Span::child(ids, "sync_proxy_rules", Timestamp::now()));
    let (root, child) = (controllers.try_recv().unwrap(), proxies.try_recv().unwrap());
    assert_eq!(root.span_context.trace_id(), child.span_context.trace_id());
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert_eq!(child.parent_span_id, root.span_context.span_id());
    assert_ne!(child.span_context.span_id(), root.span_context.span_id());
    assert_eq!(root.start_time, std::time::SystemTime::from(triggered));
    assert!(root.end_time > root.start_time);
}

/// A retry has the same ids; there is one root.
#[test]
fn a_failed_attempt_is_a_child_of_the_one_that_succeeds() {
    let (traces, mut queue) = traces(1_000_000);
    let triggered = at("2026-01-02T03:04:05Z");
    let ids = traces.sampled(UID, triggered).unwrap();
    let mut failed = Span::root(ids, "sync_endpointslices", triggered);
    failed.fail("conflict".to_owned());
    traces.end(failed);
    traces.end(Span::root(ids, "sync_endpointslices", triggered));
    let (failed, root) = (queue.try_recv().unwrap(), queue.try_recv().unwrap());
    assert_eq!(failed.parent_span_id, root.span_context.span_id());
    assert_ne!(failed.span_context.span_id(), root.span_context.span_id());
}

#[test]
fn nothing_is_sampled_while_traces_are_off() {
    let (traces, _) = start(&args(&[]), source());
    assert!(!traces.is_on() && traces.sampled(UID, Timestamp::now()).is_none());
    assert_eq!(size_of::<Traces>(), size_of::<usize>());
}

#[test]
fn a_full_queue_drops_spans_and_counts_them() {
    let (traces, queue) = traces(1_000_000);
    let before = lost_spans(Loss::QueueFull).get();
    for _ in 0..QUEUE + 10 {
        traces.end(span());
    }
    assert_eq!(lost_spans(Loss::QueueFull).get() - before, 10);
    drop(queue);
}

#[tokio::test]
async fn spans_are_exported_in_batches_also_those_of_the_end() {
    let (exporter, batches) = recorder();
    let (queue, writer) = queue::channel(exporter);
    let traces = on(queue, 1_000_000);
    for _ in 0..BATCH + 3 {
        traces.end(span());
    }
    drop(traces);
    writer.run().await;
    assert_eq!(*batches.lock().unwrap(), [BATCH, 3]);
}

#[tokio::test]
async fn spans_of_a_failed_export_are_counted() {
    let (queue, writer) = queue::channel(Broken);
    let traces = on(queue, 1_000_000);
    let before = lost_spans(Loss::ExportFailed).get();
    (0..5).for_each(|_| traces.end(span()));
    drop(traces);
    writer.run().await;
    assert_eq!(lost_spans(Loss::ExportFailed).get() - before, 5);
}

#[rstest]
#[case::plain("http://127.0.0.1:4317", true)]
#[case::tls("https://otel-collector.observability.svc:4317", true)]
#[case::ipv6("http://[::1]:4317", true)]
#[case::no_scheme("127.0.0.1:4317", false)]
#[case::other_scheme("grpc://127.0.0.1:4317", false)]
#[case::path("http://127.0.0.1:4318/v1/traces", false)]
#[case::empty("", false)]
fn endpoints(#[case] text: &str, #[case] is_valid: bool) {
    assert_eq!(text.parse::<Endpoint>().is_ok(), is_valid);
}

fn span() -> Span {
    let now = Timestamp::now();
    Span::child(ChangeIds::new(UID, now), "test", now)
}

fn source() -> Source<'static> {
    Source {
        name: "test",
        version: "1.2.3",
        instance: "pod",
        node: None,
    }
}

fn args(args: &[&str]) -> TraceArgs {
    let command = TraceArgs::augment_args(Command::new("test"));
    let matches = command.get_matches_from([&["test"], args].concat());
    TraceArgs::from_arg_matches(&matches).unwrap()
}

fn traces(sampling_rate_per_million: u32) -> (Traces, mpsc::Receiver<SpanData>) {
    let (queue, spans) = mpsc::channel(QUEUE);
    (on(queue, sampling_rate_per_million), spans)
}

fn on(queue: mpsc::Sender<SpanData>, sampling_rate_per_million: u32) -> Traces {
    Traces(Some(Arc::new(Enabled {
        queue,
        sampling_rate_per_million,
        scope: InstrumentationScope::default(),
    })))
}

/// Sizes of batches.
struct Recorder(Arc<Mutex<Vec<usize>>>);

fn recorder() -> (Recorder, Arc<Mutex<Vec<usize>>>) {
    let batches = Arc::new(Mutex::default());
    (Recorder(Arc::clone(&batches)), batches)
}

impl Export for Recorder {
    async fn export(&mut self, batch: Vec<SpanData>) -> Result<(), Error> {
        self.0.lock().unwrap().push(batch.len());
        Ok(())
    }
}

struct Broken;

impl Export for Broken {
    async fn export(&mut self, _: Vec<SpanData>) -> Result<(), Error> {
        Err(Error::Ca {
            file: PathBuf::from("/no/such/file"),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}
