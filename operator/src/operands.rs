//! The objects that the operator owns, by kind: as built, or as found in the cluster.
//!
//! Pure. Ownership is by labels ([`SELECTOR`]) and `status.relatedObjects`: an ownerReference to the configuration would let
//! foreground deletion collect the proxies before the nodes are clean.

use crate::platform::console::{ConsoleQuickStart, ConsoleYamlSample};
use api::config::RelatedObject;
use api::names::{CLEANUP, CONTROLLER, PROXY};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

/// Selects the objects that the operator applied; objects of `config/` lack the first label.
pub const SELECTOR: &str =
    "app.kubernetes.io/managed-by=multus-service-operator,app.kubernetes.io/part-of=multus-service";

/// Objects of every owned kind, in the order in which they are applied; a removal reverses it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operands {
    /// Restrictions that RBAC cannot express: created before the accounts that they confine, deleted after them.
    pub admission_policies: Vec<ValidatingAdmissionPolicy>,
    /// Bindings that enforce the policies.
    pub admission_policy_bindings: Vec<ValidatingAdmissionPolicyBinding>,
    /// Service accounts of controller and proxy.
    pub service_accounts: Vec<ServiceAccount>,
    /// Their permissions in all namespaces.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// Their permissions in the operator's namespace.
    pub role_bindings: Vec<RoleBinding>,
    /// Ingress to operator and controller.
    pub network_policies: Vec<NetworkPolicy>,
    /// Controller replicas that a drain leaves.
    pub pod_disruption_budgets: Vec<PodDisruptionBudget>,
    /// The controller.
    pub deployments: Vec<Deployment>,
    /// The proxy.
    pub daemon_sets: Vec<DaemonSet>,
    /// Quick starts, on clusters with OpenShift's console.
    pub console_quick_starts: Vec<ConsoleQuickStart>,
    /// YAML samples, on clusters with OpenShift's console.
    pub console_yaml_samples: Vec<ConsoleYamlSample>,
}

/// Optional kinds that the API server serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// [`ValidatingAdmissionPolicy`] and its binding: since Kubernetes 1.30, unless disabled.
    pub admission_policies: bool,
    /// [`ConsoleQuickStart`].
    pub quick_starts: bool,
    /// [`ConsoleYamlSample`].
    pub yaml_samples: bool,
}

const MAX_RELATED: usize = 64;
/// Time limit for an object that is being deleted: a finalizer of another client must not block a removal for ever.
const LINGERING: SignedDuration = SignedDuration::from_mins(2);

impl Operands {
    /// True when an operand is left that a removal has to wait for.
    pub fn holds_up_a_removal(&self, now: Timestamp) -> bool {
        fn any<K: Resource>(objects: &[K], now: Timestamp) -> bool {
            objects.iter().any(|object| {
                let deleted = object.meta().deletion_timestamp.as_ref();
                deleted.is_none_or(|deleted| now.duration_since(deleted.0) < LINGERING)
            })
        }
        let Self {
            admission_policies,
            admission_policy_bindings,
            service_accounts,
            cluster_role_bindings,
            role_bindings,
            network_policies,
            pod_disruption_budgets,
            deployments,
            daemon_sets,
            console_quick_starts,
            console_yaml_samples,
        } = self;
        any(admission_policies, now)
            || any(admission_policy_bindings, now)
            || any(service_accounts, now)
            || any(cluster_role_bindings, now)
            || any(role_bindings, now)
            || any(network_policies, now)
            || any(pod_disruption_budgets, now)
            || any(deployments, now)
            || any(daemon_sets, now)
            || any(console_quick_starts, now)
            || any(console_yaml_samples, now)
    }

    /// The controller's Deployment.
    pub fn controller(&self) -> Option<&Deployment> {
        self.deployments
            .iter()
            .find(|object| object.name_any() == CONTROLLER)
    }

    /// The proxy's DaemonSet.
    pub fn proxy(&self) -> Option<&DaemonSet> {
        self.daemon_sets.iter().find(|object| object.name_any() == PROXY)
    }

    /// The DaemonSet that cleans up nodes that no longer match the proxy's scheduling.
    pub fn cleanup(&self) -> Option<&DaemonSet> {
        self.daemon_sets
            .iter()
            .find(|object| object.name_any() == CLEANUP)
    }

    /// References to all objects, sorted.
    pub fn related_objects(&self) -> Vec<RelatedObject> {
        let Self {
            admission_policies,
            admission_policy_bindings,
            service_accounts,
            cluster_role_bindings,
            role_bindings,
            network_policies,
            pod_disruption_budgets,
            deployments,
            daemon_sets,
            console_quick_starts,
            console_yaml_samples,
        } = self;
        let mut related = references(admission_policies);
        related.extend(references(admission_policy_bindings));
        related.extend(references(service_accounts));
        related.extend(references(cluster_role_bindings));
        related.extend(references(role_bindings));
        related.extend(references(network_policies));
        related.extend(references(pod_disruption_budgets));
        related.extend(references(deployments));
        related.extend(references(daemon_sets));
        related.extend(references(console_quick_starts));
        related.extend(references(console_yaml_samples));
        related.sort();
        // The limit of the API for the list.
        related.truncate(MAX_RELATED);
        related
    }
}

fn references<K: Resource<DynamicType = ()>>(objects: &[K]) -> Vec<RelatedObject> {
    let reference = |object: &K| RelatedObject {
        group: K::group(&()).into_owned(),
        resource: K::plural(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    };
    objects.iter().map(reference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::names::{OPERATOR_MANAGED_BY, PART_OF};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn finalizer_of_another_client_does_not_block_a_removal_for_ever() {
        let deleted = Timestamp::UNIX_EPOCH;
        let mut account = ServiceAccount::default();
        let holds_up = |account: &ServiceAccount, seconds| {
            let operands = Operands {
                service_accounts: vec![account.clone()],
                ..Operands::default()
            };
            operands.holds_up_a_removal(deleted + SignedDuration::from_secs(seconds))
        };
        assert!(holds_up(&account, 1_000));
        account.metadata.deletion_timestamp = Some(Time(deleted));
        assert!(holds_up(&account, 119) && !holds_up(&account, 120));
    }

    #[test]
    fn selector_consists_of_the_frozen_names() {
        let expected =
            format!("app.kubernetes.io/managed-by={OPERATOR_MANAGED_BY},app.kubernetes.io/part-of={PART_OF}");
        assert_eq!(SELECTOR, expected);
    }
}
