//! Deployment and DaemonSet: rollout state, container, update strategy.
//!
//! Pure. The rollout rules are OpenShift's: a DaemonSet progresses while `updated < current`, never because `desired` grew, so that
//! a rebooting or new node is no rollout (cluster-network-operator, `statusmanager`).

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy, Deployment, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// True when at least one replica has been available for long enough.
pub(crate) fn controller_is_available(controller: &Deployment) -> bool {
    let status = controller.status.as_ref();
    status
        .and_then(|status| status.available_replicas)
        .unwrap_or_default()
        > 0
}

/// True until the Deployment controller has observed and completed a change. `NewReplicaSetAvailable` stays when a replica is
/// rescheduled.
pub(crate) fn controller_is_rolling_out(controller: &Deployment) -> bool {
    let Some(status) = &controller.status else {
        return true;
    };
    let finished = |conditions: &Vec<_>| {
        conditions
            .iter()
            .any(|condition: &k8s_openapi::api::apps::v1::DeploymentCondition| {
                condition.type_ == "Progressing"
                    && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
            })
    };
    // A rollback to a ReplicaSet that still exists keeps the condition of the previous rollout.
    let is_behind = status.updated_replicas.unwrap_or_default() < status.replicas.unwrap_or_default();
    status.observed_generation != controller.metadata.generation
        || is_behind
        || !status.conditions.as_ref().is_some_and(finished)
}

/// The error when pods of the controller cannot be created.
pub(crate) fn controller_rejection(controller: &Deployment) -> Option<String> {
    let conditions = controller.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    failure.message.clone()
}

/// Progress of the controller rollout.
pub(crate) fn controller_progress(controller: &Deployment) -> String {
    let status = controller.status.clone().unwrap_or_default();
    let wanted = controller
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or_default();
    let done = status
        .updated_replicas
        .unwrap_or_default()
        .min(status.available_replicas.unwrap_or_default());
    format!("Controller rollout: {done} of {wanted} replicas updated")
}

/// True when proxy pods are updated only after a manual deletion.
pub(crate) fn proxy_waits_for_deletion(proxy: &DaemonSet) -> bool {
    let strategy = proxy.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

/// Number of nodes that should run a proxy; `None` until the DaemonSet controller has reported it.
pub(crate) fn desired_proxies(proxy: &DaemonSet) -> Option<i32> {
    let status = proxy.status.as_ref()?;
    status
        .observed_generation
        .map(|_| status.desired_number_scheduled)
}

/// True when at least one proxy is available, or none is desired.
pub(crate) fn proxy_is_available(proxy: &DaemonSet) -> bool {
    let available = proxy
        .status
        .as_ref()
        .and_then(|status| status.number_available)
        .unwrap_or_default();
    desired_proxies(proxy).is_some_and(|wanted| wanted == 0 || available > 0)
}

/// Progress of the proxy rollout; `None` when it is complete.
pub(crate) fn proxy_progress(proxy: &DaemonSet) -> Option<String> {
    let Some(status) = proxy
        .status
        .as_ref()
        .filter(|status| status.observed_generation == proxy.metadata.generation)
    else {
        return Some("Waiting for the DaemonSet controller to observe the change of the proxy".to_owned());
    };
    let (updated, current) = (
        status.updated_number_scheduled.unwrap_or_default(),
        status.current_number_scheduled,
    );
    (updated < current).then(|| format!("Proxy rollout: {updated} of {current} nodes updated"))
}

/// Progress of the first installation; `None` when a proxy is available on every desired node.
pub(crate) fn installation_progress(proxy: &DaemonSet) -> Option<String> {
    let wanted = desired_proxies(proxy)?;
    let available = proxy
        .status
        .as_ref()
        .and_then(|status| status.number_available)
        .unwrap_or_default();
    (available < wanted).then(|| format!("Proxy installation: {available} of {wanted} nodes available"))
}

/// The only container of an operand.
pub(crate) fn container(pod: &mut PodSpec) -> &mut Container {
    pod.containers
        .first_mut()
        .expect("the manifests have one container each: a test says so")
}

/// A rolling update with this many unavailable pods.
pub(crate) fn rolling_update(max_unavailable: IntOrString) -> DaemonSetUpdateStrategy {
    DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_unavailable: Some(max_unavailable),
            ..RollingUpdateDaemonSet::default()
        }),
    }
}
