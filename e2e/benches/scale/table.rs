//! The table that is printed. Pure.

use super::Size;
use std::fmt;
use std::time::Duration;

/// The change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Endpoint,
    Heartbeat,
    Pod,
    PodOfNewNetwork,
    Restart,
}

impl Row {
    pub(crate) const ALL: [Self; 5] = [
        Self::Endpoint,
        Self::Heartbeat,
        Self::Pod,
        Self::PodOfNewNetwork,
        Self::Restart,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint change",
            Self::Heartbeat => "node heartbeat",
            Self::Pod => "pod start",
            Self::PodOfNewNetwork => "pod start, network new to the node",
            Self::Restart => "restart of 10 % of the proxies",
        }
    }
}

/// Cost of one change, of all proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    /// Events of watches that the proxies saw.
    pub(crate) events: f64,
    /// Bytes that the API server sent them.
    pub(crate) bytes: f64,
    /// Seconds of CPU of the API server.
    pub(crate) cpu: f64,
    /// Events of watches that the API server counts itself, its own and bookmarks among them.
    pub(crate) server_events: f64,
    /// Duration of all such changes.
    pub(crate) took: Duration,
}

impl Cost {
    /// Returns the cost beyond the baseline without watchers.
    pub(crate) fn without(&mut self, baseline: &Self) {
        self.cpu = (self.cpu - baseline.cpu).max(0.0);
        self.server_events = (self.server_events - baseline.server_events).max(0.0);
    }
}

/// Costs of the same change.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    pub(crate) ours: Cost,
    pub(crate) kube: Cost,
}

pub(crate) struct Table {
    pub(crate) size: Size,
    pub(crate) rows: Vec<(Row, Costs)>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size {
            proxies,
            services,
            endpoints,
            networks,
            changes,
        } = &self.size;
        writeln!(
            f,
            "{proxies} proxies and as many nodes; {services} labeled Services on {networks} networks and as many ordinary ones, {endpoints} endpoints each; {changes} changes"
        )?;
        writeln!(
            f,
            "events: counted by the clients; KiB: at the sockets of the clients, TLS included; CPU: process_cpu_seconds_total of the API server"
        )?;
        writeln!(f, "minus the cost of the change without watchers\n")?;
        writeln!(
            f,
            "{:36} {:^26} {:^30} {:^30}",
            "", "events", "KiB", "API server CPU, ms"
        )?;
        writeln!(
            f,
            "{:36} {:>8} {:>10} {:>6} {:>11} {:>11} {:>6} {:>11} {:>11} {:>6}",
            "one",
            "ours",
            "kube-proxy",
            "ratio",
            "ours",
            "kube-proxy",
            "ratio",
            "ours",
            "kube-proxy",
            "ratio"
        )?;
        for (row, Costs { ours, kube }) in &self.rows {
            writeln!(
                f,
                "{:36} {:>8.1} {:>10.1} {:>6} {:>11.1} {:>11.1} {:>6} {:>11.2} {:>11.2} {:>6}",
                row.name(),
                ours.events,
                kube.events,
                ratio(ours.events, kube.events),
                ours.bytes / 1024.0,
                kube.bytes / 1024.0,
                ratio(ours.bytes, kube.bytes),
                ours.cpu * 1e3,
                kube.cpu * 1e3,
                ratio(ours.cpu * 1e3, kube.cpu * 1e3),
            )?;
        }
        if let Some((_, Costs { ours, kube })) = self.rows.iter().find(|(row, _)| *row == Row::Restart) {
            writeln!(
                f,
                "\nrestart until all lists are read: ours {:.2?}, kube-proxy {:.2?}",
                ours.took, kube.took
            )?;
        }
        Ok(())
    }
}

/// `-`: nothing to compare with.
fn ratio(ours: f64, kube: f64) -> String {
    if kube < 0.05 {
        return "-".to_owned();
    }
    format!("{:.2}", ours / kube)
}
