//! Counts of what was written in network namespaces.
//!
//! Global: the work runs on threads in the namespaces of pods, far from the registry.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::sync::LazyLock;

/// Connection tracking entries that were deleted because they were stale.
pub(super) static CONNTRACK_DELETIONS: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Routes that were written again although nothing but the namespace had changed.
pub(super) static ROUTES_REPAIRED: LazyLock<Counter> = LazyLock::new(Counter::default);

pub(crate) fn register(registry: &mut Registry) {
    registry.register(
        "conntrack_deletions",
        "Stale connection tracking entries that were deleted",
        CONNTRACK_DELETIONS.clone(),
    );
    registry.register(
        "routes_repaired",
        "Routes to ClusterIPs that another process or a link removed or changed, and that were written again",
        ROUTES_REPAIRED.clone(),
    );
}
