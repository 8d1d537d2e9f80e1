//! The manifests as typed objects, parsed once.
//!
//! Pure. The YAML is part of the binary and every file is parsed by a test, so that parsing cannot fail in a cluster.

use crate::kinds::{Scope, for_each_kind};
use crate::operands::Operands;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::rbac::v1::Subject;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

/// All manifests, in a namespace.
#[derive(Clone)]
pub(super) struct Manifests {
    /// Objects that do not depend on the configuration.
    pub(super) identities: Operands,
    /// Policies and bindings of the validation of Services.
    pub(super) service_validation: Operands,
    pub(super) controller: Deployment,
    pub(super) proxy: DaemonSet,
}

/// Files with a policy and its binding each: those that warn authors of Services and pods.
const WARNINGS: [&str; 3] = [
    include_str!("../../manifests/validation-pod-networks.yaml"),
    include_str!("../../manifests/validation-service-warnings.yaml"),
    include_str!("../../manifests/validation-services.yaml"),
];
/// Files with a policy and its binding each: those that confine accounts.
const ADMISSION: [&str; 6] = [
    include_str!("../../manifests/admission-controller-endpointslices.yaml"),
    include_str!("../../manifests/admission-controller-status.yaml"),
    include_str!("../../manifests/admission-endpointslices.yaml"),
    include_str!("../../manifests/admission-events.yaml"),
    include_str!("../../manifests/admission-operator-nodes.yaml"),
    include_str!("../../manifests/admission-proxy-status.yaml"),
];
/// Prefix of the service accounts in the policies' expressions.
const ACCOUNTS: &str = "system:serviceaccount:multus-service:";

static MANIFESTS: LazyLock<Manifests> = LazyLock::new(|| Manifests {
    identities: Operands {
        admission_policies: ADMISSION.map(|pair| parse(documents(pair).0)).into(),
        admission_policy_bindings: ADMISSION.map(|pair| parse(documents(pair).1)).into(),
        service_accounts: vec![
            parse(include_str!("../../manifests/controller-service-account.yaml")),
            parse(include_str!("../../manifests/proxy-service-account.yaml")),
        ],
        cluster_role_bindings: vec![
            parse(include_str!(
                "../../manifests/controller-cluster-role-binding.yaml"
            )),
            parse(include_str!("../../manifests/proxy-cluster-role-binding.yaml")),
        ],
        role_bindings: vec![
            parse(include_str!("../../manifests/controller-role-binding.yaml")),
            parse(include_str!(
                "../../manifests/proxy-openshift-scc-role-binding.yaml"
            )),
        ],
        network_policies: vec![parse(include_str!("../../manifests/network-policy.yaml"))],
        pod_disruption_budgets: vec![parse(include_str!(
            "../../manifests/controller-pod-disruption-budget.yaml"
        ))],
        services: vec![
            parse(include_str!("../../manifests/operator-metrics-service.yaml")),
            parse(include_str!("../../manifests/controller-metrics-service.yaml")),
            parse(include_str!("../../manifests/proxy-metrics-service.yaml")),
        ],
        console_quick_starts: vec![parse(include_str!("../../manifests/console-quick-start.yaml"))],
        console_yaml_samples: vec![
            parse(include_str!("../../manifests/console-sample-service.yaml")),
            parse(include_str!(
                "../../manifests/console-sample-headless-service.yaml"
            )),
        ],
        ..Operands::default()
    },
    service_validation: Operands {
        admission_policies: WARNINGS.map(|pair| parse(documents(pair).0)).into(),
        admission_policy_bindings: WARNINGS.map(|pair| parse(documents(pair).1)).into(),
        ..Operands::default()
    },
    controller: parse(include_str!("../../manifests/controller-deployment.yaml")),
    proxy: parse(include_str!("../../manifests/proxy-daemonset.yaml")),
});

pub(super) fn parse<K: DeserializeOwned>(manifest: &str) -> K {
    serde_saphyr::from_str(manifest).expect("embedded manifests are parsed by a test")
}

fn documents(manifest: &str) -> (&str, &str) {
    manifest
        .split_once("\n---\n")
        .expect("a policy and its binding are two documents: a test says so")
}

impl Manifests {
    pub(super) fn in_namespace(namespace: &str) -> Self {
        let mut manifests = MANIFESTS.clone();
        let Self {
            identities,
            service_validation: _,
            controller,
            proxy,
        } = &mut manifests;
        place(controller, namespace);
        place(proxy, namespace);
        macro_rules! place_kinds {
            ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {
                $(for object in &mut identities.$field {
                    place(object, namespace);
                })*
            };
        }
        for_each_kind!(place_kinds);
        for policy in &mut identities.admission_policies {
            place_accounts(policy, namespace);
        }
        for binding in &mut identities.cluster_role_bindings {
            place_subjects(&mut binding.subjects, namespace);
        }
        for binding in &mut identities.role_bindings {
            place_subjects(&mut binding.subjects, namespace);
        }
        manifests
    }
}

/// Sets the namespace of an object whose kind is namespaced.
fn place<K>(object: &mut K, namespace: &str)
where
    K: Resource,
    K::Scope: Scope<K>,
{
    object.meta_mut().namespace = K::Scope::namespace(namespace).map(str::to_owned);
}

/// Policies match service accounts with their namespace, so that an account of the same name in another namespace does not match.
fn place_accounts(policy: &mut ValidatingAdmissionPolicy, namespace: &str) {
    let prefix = format!("system:serviceaccount:{namespace}:");
    let spec = policy.spec.get_or_insert_default();
    for condition in spec.match_conditions.iter_mut().flatten() {
        condition.expression = condition.expression.replace(ACCOUNTS, &prefix);
    }
}

fn place_subjects(subjects: &mut Option<Vec<Subject>>, namespace: &str) {
    for subject in subjects.iter_mut().flatten() {
        subject.namespace = Some(namespace.to_owned());
    }
}
