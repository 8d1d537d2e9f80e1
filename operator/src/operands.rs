//! The objects that the operator owns, by kind: as built, or as found in the cluster.
//!
//! Pure. Ownership is by labels ([`SELECTOR`]) and `status.relatedObjects`: an ownerReference to the configuration would let
//! foreground deletion collect the proxies before the nodes are clean.

use crate::kinds::for_each_kind;
use api::config::RelatedObject;
use api::names::{CLEANUP, CONTROLLER, PROXY};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

/// Selects the objects that the operator applied; objects of `config/` lack the first label.
pub const SELECTOR: &str =
    "app.kubernetes.io/managed-by=multus-service-operator,app.kubernetes.io/part-of=multus-service";

/// Label of controller and proxy with the version of the operator that applied them.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";

macro_rules! define_operands {
    ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {
        /// Objects of every owned kind, in the order in which they are applied; a removal reverses it.
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        pub struct Operands {
            $($(#[$doc])* pub $field: Vec<$kind>,)*
        }

        impl Operands {
            /// True when an operand is left that a removal has to wait for.
            pub fn blocks_removal(&self, now: Timestamp) -> bool {
                false $(|| self.$field.iter().any(|object| is_awaited(object, now)))*
            }

            /// References to all objects, sorted.
            pub fn related_objects(&self) -> Vec<RelatedObject> {
                let mut related = Vec::new();
                $(related.extend(self.$field.iter().map(reference));)*
                related.sort();
                // The limit of the API for the list.
                related.truncate(MAX_RELATED);
                related
            }
        }
    };
}
for_each_kind!(define_operands);

/// Optional kinds that the API server serves.
#[expect(clippy::struct_excessive_bools, reason = "kinds come and go one by one")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// ValidatingAdmissionPolicy and its binding: since Kubernetes 1.30, unless disabled.
    pub admission_policies: bool,
    /// ConsoleQuickStart.
    pub quick_starts: bool,
    /// ConsoleYAMLSample.
    pub yaml_samples: bool,
    /// ServiceMonitor.
    pub service_monitors: bool,
    /// PrometheusRule.
    pub prometheus_rules: bool,
}

const MAX_RELATED: usize = 64;
/// Time limit for an object that is being deleted: a finalizer of another client must not block a removal for ever.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

impl Operands {
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
}

/// An object that is being deleted is awaited for a limited time.
fn is_awaited(object: &impl Resource, now: Timestamp) -> bool {
    let deleted = object.meta().deletion_timestamp.as_ref();
    deleted.is_none_or(|deleted| now.duration_since(deleted.0) < DELETION_TIMEOUT)
}

fn reference<K: Resource<DynamicType = ()>>(object: &K) -> RelatedObject {
    RelatedObject {
        group: K::group(&()).into_owned(),
        resource: K::plural(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::names::{OPERATOR_MANAGED_BY, PART_OF};
    use k8s_openapi::api::core::v1::ServiceAccount;
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
            operands.blocks_removal(deleted + SignedDuration::from_secs(seconds))
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
