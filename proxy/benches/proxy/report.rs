//! Markdown tables of measurements.

use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const BEGIN: &str = "<!-- bench-proxy: begin (written by make bench-proxy) -->";
const END: &str = "<!-- bench-proxy: end -->";

/// Durations of one case, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn min(&self) -> Duration {
        self.0[0]
    }

    pub(crate) fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    pub(crate) fn p99(&self) -> Duration {
        self.0[(self.0.len() * 99).div_ceil(100) - 1]
    }
}

/// Formats `other / one`.
pub(crate) fn ratio(other: Duration, one: Duration) -> String {
    let ratio = other.as_secs_f64() / one.as_secs_f64();
    if ratio < 20.0 {
        format!("{ratio:.2}")
    } else {
        format!("{ratio:.0}")
    }
}

/// Formats a duration with three digits.
pub(crate) fn format_duration(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        ..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Accumulated tables.
#[derive(Default)]
pub(crate) struct Report(String);

impl Report {
    /// Starts a table.
    pub(crate) fn table(&mut self, title: &str, columns: &[&str]) {
        let _ = write!(self.0, "\n{title}\n\n");
        self.line(columns.iter().map(|column| (*column).to_owned()));
        self.line(columns.iter().map(|_| "---".to_owned()));
    }

    /// Adds a row and prints it at once, because a full run takes minutes.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        eprintln!("{}", cells.join("  "));
        self.line(cells.into_iter());
    }

    fn line(&mut self, cells: impl Iterator<Item = String>) {
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(self.0, "| {} |", cells.join(" | "));
    }

    /// Adds the kernel, the number of CPUs, the load and the total time.
    pub(crate) fn close(&mut self, took: Duration) {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let _ = write!(
            self.0,
            "\nLinux {}, {cpus} CPUs, load average {load} at the end, {} s in all.\n",
            kernel.trim(),
            took.as_secs()
        );
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Writes the tables between the marks of a file.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let name = file.display();
        let old = std::fs::read_to_string(file).with_context(|| format!("failed to read {name}"))?;
        let (before, rest) = old
            .split_once(BEGIN)
            .with_context(|| format!("{name} has no line {BEGIN:?}"))?;
        let (_, after) = rest
            .split_once(END)
            .with_context(|| format!("{name} has no line {END:?}"))?;
        let new = format!("{before}{BEGIN}\n{}\n{END}{after}", self.0);
        std::fs::write(file, new).with_context(|| format!("failed to write {name}"))
    }
}
