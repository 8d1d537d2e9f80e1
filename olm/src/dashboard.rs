//! The dashboard: one list of panels, rendered for Grafana and for OpenShift's console.
//!
//! Pure. The console renders Grafana's older format and knows neither heatmaps nor newer panels.

mod console;
mod grafana;
mod panels;

pub use console::config_map;
pub use grafana::dashboard;
pub use panels::rows;

/// Title and name of the dashboard.
pub const TITLE: &str = "Multus Service";

/// Panels under a heading.
#[derive(Clone, Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// Queries that are drawn together.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: &'static str,
    /// What a reader concludes from it.
    pub description: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// `PromQL`, and the legend with labels as `{{label}}`.
    pub queries: Vec<(&'static str, &'static str)>,
}

/// Form of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The latest number.
    Stat,
    /// The latest number as a word: what 1 means, and whether it is good. 0 is the opposite.
    Word {
        one: &'static str,
        zero: &'static str,
        is_good: bool,
    },
    /// Lines over time.
    Lines,
    /// Areas over time, on each other.
    Areas,
    /// The buckets of a histogram over time. Only Grafana can draw it.
    Heatmap,
}

/// Unit of a panel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Number,
    PerSecond,
    Seconds,
    Bytes,
    /// CPU time per time.
    Cores,
}

impl Unit {
    /// Grafana's name.
    fn name(self) -> &'static str {
        match self {
            Self::Number | Self::Cores => "short",
            Self::PerSecond => "ops",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
        }
    }
}
