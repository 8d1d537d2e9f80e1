//! The objects of a bug report.
//!
//! Pure.

use api::names::{PART_OF, PROXY_NAME, PROXY_NAME_LABEL};
use kube::core::{ApiResource, GroupVersionKind};

/// Namespaces of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The kind has no namespaces.
    Cluster,
    /// The operator's namespace.
    Operands,
    /// All namespaces.
    Everywhere,
}

/// What is left of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but what [`super::reduce`] removes from every object.
    Whole,
    /// Without the list of images.
    Node,
    /// Pods attached to a network: what Services depend on.
    AttachedPod,
    /// Objects of the product, by the beginning of their name: these kinds have no label of the product.
    OwnName,
    /// Events of objects of the product, by the beginning of their name.
    OwnEvent,
}

/// A list of objects.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) resource: ApiResource,
    pub(super) place: Place,
    pub(super) part: Part,
    pub(super) labels: String,
    pub(super) fields: String,
}

fn objects(group: &str, version: &str, kind: &str, plural: &str, place: Place) -> Objects {
    let kind = GroupVersionKind::gvk(group, version, kind);
    Objects {
        resource: ApiResource::from_gvk_with_plural(&kind, plural),
        place,
        part: Part::Whole,
        labels: String::new(),
        fields: String::new(),
    }
}

impl Objects {
    fn labelled(self, labels: String) -> Self {
        Self { labels, ..self }
    }

    fn reduced(self, part: Part) -> Self {
        Self { part, ..self }
    }

    fn with_fields(self, fields: String) -> Self {
        Self { fields, ..self }
    }
}

/// The lists of the installation, which are written before the logs.
pub(super) fn installation() -> Vec<Objects> {
    let mut all = cluster();
    all.extend(operands());
    all
}

fn ours() -> String {
    format!("app.kubernetes.io/part-of={PART_OF}")
}

fn cluster() -> Vec<Objects> {
    let of = |group, version, kind, plural| objects(group, version, kind, plural, Place::Cluster);
    vec![
        of(
            "multusservice.cni.cncf.io",
            "v1alpha1",
            "MultusServiceConfig",
            "multusserviceconfigs",
        ),
        of("", "v1", "Node", "nodes").reduced(Part::Node),
        of("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs"),
        of(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
        )
        .labelled(ours()),
        of(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
        )
        .labelled(ours()),
        of("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles").labelled(ours()),
        of(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRoleBinding",
            "clusterrolebindings",
        )
        .labelled(ours()),
        of("config.openshift.io", "v1", "ClusterVersion", "clusterversions"),
        of("config.openshift.io", "v1", "Network", "networks"),
    ]
}

/// Other operators may share the namespace: only what is the product's.
fn operands() -> Vec<Objects> {
    let of = |group, version, kind, plural| objects(group, version, kind, plural, Place::Operands);
    let ours = |group, version, kind, plural| of(group, version, kind, plural).labelled(ours());
    let own = |group, version, kind, plural| of(group, version, kind, plural).reduced(Part::OwnName);
    vec![
        ours("apps", "v1", "Deployment", "deployments"),
        ours("apps", "v1", "DaemonSet", "daemonsets"),
        ours("apps", "v1", "ReplicaSet", "replicasets"),
        ours("", "v1", "Pod", "pods"),
        of("", "v1", "Event", "events").reduced(Part::OwnEvent),
        ours("", "v1", "Service", "services"),
        own("coordination.k8s.io", "v1", "Lease", "leases"),
        ours("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
        ours("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        ours("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
        own(
            "operators.coreos.com",
            "v1alpha1",
            "Subscription",
            "subscriptions",
        ),
        own(
            "operators.coreos.com",
            "v1alpha1",
            "ClusterServiceVersion",
            "clusterserviceversions",
        ),
        own(
            "operators.coreos.com",
            "v2",
            "OperatorCondition",
            "operatorconditions",
        ),
    ]
}

/// The lists of all namespaces, which are written after the logs: they can be large.
pub(super) fn everywhere() -> Vec<Objects> {
    let of = |group, version, kind, plural| objects(group, version, kind, plural, Place::Everywhere);
    let served = format!("{PROXY_NAME_LABEL}={PROXY_NAME}");
    let events = |component: &str| {
        of("", "v1", "Event", "events").with_fields(format!("reportingComponent={component}"))
    };
    vec![
        of("", "v1", "Service", "services").labelled(served.clone()),
        of("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").labelled(served),
        of(
            "k8s.cni.cncf.io",
            "v1",
            "NetworkAttachmentDefinition",
            "network-attachment-definitions",
        ),
        events(api::names::OPERATOR),
        events(api::names::CONTROLLER),
        events(api::names::PROXY),
        of("", "v1", "Pod", "pods").reduced(Part::AttachedPod),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_listed() {
        for objects in installation().into_iter().chain(everywhere()) {
            let plural = objects.resource.plural;
            assert!(!["secrets", "configmaps"].contains(&&*plural), "{plural}");
        }
    }
}
