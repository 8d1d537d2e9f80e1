//! What the data plane costs: a rule change, a connection, load, memory, a cold fill; each beside a yardstick of the same run.
//!
//! Yardsticks: a direct connection, and a model of what the archived Go original does for every pod and event. Sizes are options, so
//! that the whole takes minutes: `cargo bench -p proxy --bench proxy -- --help`. Needs root; makes its own network namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot go on ends"
)]

mod bare;
#[path = "../../tests/netns/bed.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod bed;
#[path = "../../tests/netns/case.rs"]
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "shared with the tests, which use more of it"
)]
mod case;
mod change;
#[path = "../../tests/netns/cluster.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod cluster;
mod connect;
mod driven;
#[path = "../../tests/netns/driver.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod driver;
mod limit;
mod load;
mod memory;
mod original;
mod report;
mod rss;
mod start;
mod world;

use case::Kind;
use clap::Parser;
use report::Report;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// How glibc keeps memory, as `operator/manifests/proxy-daemonset.yaml` has it for the proxy.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "65536")];

/// Measures the data plane. Prints Markdown.
#[derive(Parser, Debug)]
struct Options {
    /// Numbers of Services
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 10_000])]
    services: Vec<usize>,

    /// Numbers of pods of the node, at most 190: their addresses end before those of the endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    pods: Vec<u8>,

    /// Leave out what has more pods times Services than this, with iptables and in the model of the original
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

    /// Only print what this process weighs with many pods
    #[arg(long, hide = true, value_name = "WAY")]
    weigh: Option<rss::Way>,

    /// Only these tables: change, limit, driven, start, connect, load, memory, rss
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    only: Vec<String>,

    /// Only serve these namespaces until they are written
    #[arg(long, hide = true, value_name = "SERVICES,NETNS...")]
    start: Option<String>,

    /// Then make so many changes
    #[arg(long, hide = true, default_value_t = 0)]
    driven: usize,

    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether a table is wanted.
    fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == table)
    }

    /// Whether a case is small enough to be measured.
    fn affords(&self, kind: Kind, pods: usize, services: usize) -> bool {
        let limit = match kind {
            Kind::IptablesNft | Kind::IptablesLegacy => self.iptables_up_to,
            Kind::Nftables => usize::MAX,
        };
        pods * services <= limit
    }
}

/// Adds a table, or several.
type Measure = fn(&Options, &mut Report);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if ALLOCATOR.iter().any(|(name, _)| std::env::var_os(name).is_none()) {
        // It is asked at the start of a process only.
        let mut again = Command::new(std::env::current_exe()?);
        let status = again.args(std::env::args_os().skip(1)).envs(ALLOCATOR).status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    if let Some(way) = options.weigh {
        rss::weigh(way);
        return Ok(());
    }
    if let Some(what) = &options.start {
        start::serve(what, options.driven);
        return Ok(());
    }
    let began = Instant::now();
    let mut report = Report::default();
    let tables: [(&str, Measure); 8] = [
        ("change", change::measure),
        ("limit", limit::measure),
        ("driven", driven::measure),
        ("start", start::measure),
        ("connect", connect::measure),
        ("load", |_, report| load::measure(report)),
        ("memory", memory::measure),
        ("rss", |_, report| rss::measure(report)),
    ];
    for (_, measure) in tables.into_iter().filter(|(table, _)| options.wants(table)) {
        measure(&options, &mut report);
    }
    report.close(began.elapsed());
    if let Some(file) = &options.into {
        return report.write(file);
    }
    println!("{}", report.text());
    Ok(())
}
