//! Order of an upgrade: the controller first, then the proxy.
//!
//! Pure.

use super::drift::AppliedObjects;
use crate::operands::Operands;
use crate::workloads;

/// True unless the kind has to wait: the proxy is updated after the controller. A repair of the proxy does not wait.
pub(super) fn can_apply(field: &str, desired: &Operands, applied: &AppliedObjects, now: &Operands) -> bool {
    field != "daemon_sets"
        || desired.deployments.is_empty()
        || desired.daemon_sets.iter().all(|proxy| applied.is_applied(proxy))
        || proxy_may_follow(now)
}

/// True when the proxy may be updated: the controller rollout must be complete, because a new proxy reads slices in the format of
/// the new controller.
pub(crate) fn proxy_may_follow(operands: &Operands) -> bool {
    operands
        .controller()
        .is_some_and(|controller| !workloads::controller_is_rolling_out(controller))
}
