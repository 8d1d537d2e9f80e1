//! Dependencies of the driver.
//!
//! Pure.

use crate::backend::Backend;
use crate::container_runtime::SandboxSource;
use crate::index::default_legacy_namespaces;
use crate::metrics::Metrics;
use crate::report::node_condition::Reporter;
use crate::report::pod_events::EventSender;
use process::traces::Traces;
use rules::Settings;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Outputs that report the status of the node and its pods.
pub struct Reporters {
    /// Events on pods.
    pub event_sender: EventSender,
    /// Condition on the own Pod.
    pub reporter: Reporter,
    /// Metrics.
    pub metrics: Metrics,
}

/// Dependencies of the driver.
pub struct Context {
    /// Container runtime.
    pub sandboxes: Arc<dyn SandboxSource>,
    /// Backend that writes rules.
    pub backend: Arc<dyn Backend>,
    /// Reporters.
    pub reporters: Reporters,
    /// Settings of the command line.
    pub settings: Settings,
    /// Namespaces in which the archived multus-service proxy is recognized.
    pub legacy_namespaces: BTreeSet<String>,
    /// Traces of changes.
    pub traces: Traces,
    /// Sandboxes that existed before this process.
    pub(super) earlier: BTreeSet<String>,
}

impl Context {
    /// Creates a context. `earlier` lists the sandboxes that existed before this process: an earlier proxy may have written into them.
    pub fn new(
        sandboxes: Arc<dyn SandboxSource>,
        backend: Arc<dyn Backend>,
        earlier: BTreeSet<String>,
        reporters: Reporters,
        settings: Settings,
    ) -> Self {
        Self {
            sandboxes,
            backend,
            reporters,
            settings,
            legacy_namespaces: default_legacy_namespaces(),
            traces: Traces::default(),
            earlier,
        }
    }
}
