//! The kinds of objects that the operator owns, listed once.
//!
//! Pure. Adding a kind takes a line in [`for_each_kind`], its manifest in `operator/manifests` and `build/manifests.rs` (with a renderer:
//! `build/monitoring.rs`), and a permission in `config/rbac`.

use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};

/// Expands `$callback!` with every owned kind in the order of application: field of [`crate::operands::Operands`], type, presence.
///
/// Presence is `Required`, `Optional` (a built-in kind that an API server may not serve) or `Defined` (a kind of a
/// CustomResourceDefinition that may be installed and removed at any time).
macro_rules! for_each_kind {
    ($callback:ident) => {
        $callback! {
            /// Restrictions that RBAC cannot express: created before the accounts that they confine, deleted after them.
            admission_policies: k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy, Optional;
            /// Bindings that enforce the policies.
            admission_policy_bindings: k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding, Optional;
            /// Service accounts of controller and proxy.
            service_accounts: k8s_openapi::api::core::v1::ServiceAccount, Required;
            /// Their permissions in all namespaces.
            cluster_role_bindings: k8s_openapi::api::rbac::v1::ClusterRoleBinding, Required;
            /// Their permissions in the operator's namespace.
            role_bindings: k8s_openapi::api::rbac::v1::RoleBinding, Required;
            /// Ingress to operator and controller.
            network_policies: k8s_openapi::api::networking::v1::NetworkPolicy, Required;
            /// Controller replicas that a drain leaves.
            pod_disruption_budgets: k8s_openapi::api::policy::v1::PodDisruptionBudget, Required;
            /// Where metrics are scraped: created before the pods, which mount the certificates of these Services.
            services: k8s_openapi::api::core::v1::Service, Required;
            /// The controller.
            deployments: k8s_openapi::api::apps::v1::Deployment, Required;
            /// The proxy, and the cleanup.
            daemon_sets: k8s_openapi::api::apps::v1::DaemonSet, Required;
            /// Quick starts, on clusters with OpenShift's console; last, because they must not block other operands.
            console_quick_starts: $crate::platform::console::ConsoleQuickStart, Defined;
            /// YAML samples, on clusters with OpenShift's console.
            console_yaml_samples: $crate::platform::console::ConsoleYamlSample, Defined;
            /// What Prometheus reads, on clusters with prometheus-operator.
            service_monitors: $crate::platform::monitoring::ServiceMonitor, Defined;
            /// Alerts, on clusters with prometheus-operator.
            prometheus_rules: $crate::platform::monitoring::PrometheusRule, Defined;
        }
    };
}
pub(crate) use for_each_kind;

/// The scope of a kind, so that code for every kind need not distinguish namespaced and cluster-scoped ones.
pub(crate) trait Scope<K> {
    /// The API for the operands of this kind.
    fn api(client: &Client, namespace: &str) -> Api<K>;
    /// The namespace of the operands of this kind.
    fn namespace(namespace: &str) -> Option<&str>;
}

impl<K: Resource<DynamicType = (), Scope = Self>> Scope<K> for NamespaceResourceScope {
    fn api(client: &Client, namespace: &str) -> Api<K> {
        Api::namespaced(client.clone(), namespace)
    }

    fn namespace(namespace: &str) -> Option<&str> {
        Some(namespace)
    }
}

impl<K: Resource<DynamicType = (), Scope = Self>> Scope<K> for ClusterResourceScope {
    fn api(client: &Client, _: &str) -> Api<K> {
        Api::all(client.clone())
    }

    fn namespace(_: &str) -> Option<&str> {
        None
    }
}

/// The API for the operands of a kind.
pub(crate) fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = ()>,
    K::Scope: Scope<K>,
{
    K::Scope::api(client, namespace)
}
