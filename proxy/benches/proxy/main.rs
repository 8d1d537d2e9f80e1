//! Cost of the data plane: rule changes, connections, throughput, memory and a cold fill, each compared with a baseline of the same run.
//!
//! Baselines are a direct connection, and a model of what the archived multus-service proxy does for every pod and event. Sizes are
//! options, so that a full run takes minutes: `cargo bench -p proxy --bench proxy -- --help`. Needs root; creates its own network
//! namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot go on ends"
)]

mod connect_latency;
mod driven_change;
#[path = "../../tests/netns/fake_node.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod fake_node;
mod fixture;
mod kernel_memory;
mod large_change;
mod legacy_proxy;
#[path = "../../tests/netns/matrix.rs"]
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "shared with the tests, which use more of it"
)]
mod matrix;
#[path = "../../tests/netns/objects.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod objects;
mod process_memory;
mod raw_netlink;
mod report;
mod rule_change;
mod startup;
#[path = "../../tests/netns/testbed.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod testbed;
mod throughput;

use clap::Parser;
use matrix::BackendKind;
use report::Report;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Settings of glibc's allocator, as in `operator/manifests/proxy-daemonset.yaml`.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "65536")];

/// Measures the data plane and prints Markdown.
#[derive(Parser, Debug)]
struct Options {
    /// Numbers of Services
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 10_000])]
    services: Vec<usize>,

    /// Numbers of pods on the node, at most 190: their addresses end before those of the endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    pods: Vec<u8>,

    /// Skip cases with more pods times Services than this, for iptables and for the model of the legacy proxy
    #[arg(long, default_value_t = 10_000)]
    iptables_up_to: usize,

    /// Changes measured in each case; a tenth of it, at least 3, where one takes long
    #[arg(long, default_value_t = 100)]
    changes: usize,

    /// Milliseconds between two changes
    #[arg(long, default_value_t = 50)]
    pause: u64,

    /// Connections measured in each case
    #[arg(long, default_value_t = 2000)]
    connections: usize,

    /// Write the tables between the marks of this file instead of printing them
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,

    /// Only print the memory of this process with many pods
    #[arg(long, hide = true, value_name = "ARRIVAL")]
    measure_memory: Option<process_memory::Arrival>,

    /// Only these tables: change, limit, driven, start, connect, load, memory, rss
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    only: Vec<String>,

    /// Only serve these namespaces until they are programmed
    #[arg(long, hide = true, value_name = "SERVICES,NETNS...")]
    start: Option<String>,

    /// Then make this number of changes
    #[arg(long, hide = true, default_value_t = 0)]
    changes_in_child: usize,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Returns true if a table was selected.
    fn is_selected(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == table)
    }

    /// Returns true if a case is small enough to be measured.
    fn is_affordable(&self, kind: BackendKind, pods: usize, services: usize) -> bool {
        let limit = match kind {
            BackendKind::IptablesNft | BackendKind::IptablesLegacy => self.iptables_up_to,
            BackendKind::Nftables => usize::MAX,
        };
        pods * services <= limit
    }
}

/// Adds one or more tables to the report.
type Measure = fn(&Options, &mut Report);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_none()) {
        // glibc reads these variables at process start only.
        let mut again = Command::new(std::env::current_exe()?);
        let status = again.args(std::env::args_os().skip(1)).envs(ALLOCATOR).status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    if let Some(arrival) = options.measure_memory {
        process_memory::measure_this_process(arrival);
        return Ok(());
    }
    if let Some(what) = &options.start {
        startup::serve(what, options.changes_in_child);
        return Ok(());
    }
    let began = Instant::now();
    let mut report = Report::default();
    let tables: [(&str, Measure); 8] = [
        ("change", rule_change::measure),
        ("limit", large_change::measure),
        ("driven", driven_change::measure),
        ("start", startup::measure),
        ("connect", connect_latency::measure),
        ("load", |_, report| throughput::measure(report)),
        ("memory", kernel_memory::measure),
        ("rss", |_, report| process_memory::measure(report)),
    ];
    for (_, measure) in tables.into_iter().filter(|(table, _)| options.is_selected(table)) {
        measure(&options, &mut report);
    }
    report.close(began.elapsed());
    if let Some(file) = &options.into {
        return report.write(file);
    }
    println!("{}", report.text());
    Ok(())
}
