//! `process_*`: the metrics of every Prometheus client library.
//!
//! Reads: `/proc/self`, at each scrape.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Reads the use of the machine by this process. A value that cannot be read is absent.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    /// Start of the process, in seconds since the epoch. `/proc/stat`, which has the time of the boot, is long on a machine with many
    /// cores: it is read once.
    started: Option<f64>,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        Self {
            started: start_time().ok(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds and ticks are far below 2^52")]
fn start_time() -> ProcResult<f64> {
    let ticks = Process::myself()?.stat()?.starttime;
    Ok(boot_time_secs()? as f64 + ticks as f64 / ticks_per_second() as f64)
}

/// One reading of `/proc/self`.
struct Usage {
    cpu_seconds: f64,
    resident: u64,
    virtual_memory: u64,
    open_files: u64,
    max_files: u64,
}

impl Usage {
    #[expect(clippy::cast_precision_loss, reason = "seconds and ticks are far below 2^52")]
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let max_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit,
            LimitValue::Unlimited => u64::MAX,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second() as f64,
            resident: stat.rss * page_size(),
            virtual_memory: stat.vsize,
            open_files: process.fd_count()? as u64,
            max_files,
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut metric = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            let metric_encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(metric_encoder)
        };
        if let Some(started) = self.started {
            metric(
                "process_start_time_seconds",
                "Start of the process, in seconds since the epoch.",
                &ConstGauge::new(started),
            )?;
        }
        let Ok(usage) = Usage::read() else { return Ok(()) };
        metric(
            "process_cpu_seconds",
            "CPU time that the process used, in user and system mode.",
            &ConstCounter::new(usage.cpu_seconds),
        )?;
        metric(
            "process_resident_memory_bytes",
            "Resident memory of the process.",
            &ConstGauge::new(usage.resident),
        )?;
        metric(
            "process_virtual_memory_bytes",
            "Virtual memory of the process.",
            &ConstGauge::new(usage.virtual_memory),
        )?;
        metric(
            "process_open_fds",
            "Open file descriptors of the process.",
            &ConstGauge::new(usage.open_files),
        )?;
        metric(
            "process_max_fds",
            "Limit of open file descriptors of the process.",
            &ConstGauge::new(usage.max_files),
        )
    }
}
