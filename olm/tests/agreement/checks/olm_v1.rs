//! Requirements of OLM v1.
//! <https://github.com/operator-framework/operator-controller>, `internal/operator-controller/rukpak/render/registryv1`

use super::{Check, Subject};
use olm::bundle::KINDS;
use olm::{identity, items, text};
use std::collections::BTreeSet;

pub(super) const CHECKS: &[Check] = &[
    ("olmv1-kinds", kinds),
    ("olmv1-install-modes", install_modes),
    ("olmv1-unsupported", unsupported),
    ("olmv1-unique", unique),
    ("olmv1-owned-crds", owned_crds),
    ("olmv1-environment", environment),
];

fn kinds(subject: &Subject) -> Vec<String> {
    subject
        .manifests
        .iter()
        .filter(|object| {
            text(object, "/kind") != "ClusterServiceVersion" && !KINDS.contains(&text(object, "/kind"))
        })
        .map(|object| format!("{} cannot be in a bundle", identity(object)))
        .collect()
}

fn install_modes(subject: &Subject) -> Vec<String> {
    let supported = |name| {
        items(&subject.csv, "/spec/installModes")
            .any(|mode| mode["type"] == name && mode["supported"] == true)
    };
    (!supported("AllNamespaces"))
        .then(|| "AllNamespaces is not supported".to_owned())
        .into_iter()
        .collect()
}

fn unsupported(subject: &Subject) -> Vec<String> {
    let spec = &subject.csv["spec"];
    ["apiservicedefinitions", "webhookdefinitions"]
        .into_iter()
        .filter(|field| !spec[field].is_null())
        .map(|field| format!("spec.{field} is not supported, or needs a certificate provider"))
        .chain(
            (!spec["customresourcedefinitions"]["required"].is_null())
                .then(|| "a required API is a dependency".to_owned()),
        )
        .collect()
}

fn unique(subject: &Subject) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let deployments = items(&subject.csv, "/spec/install/spec/deployments")
        .map(|deployment| format!("the deployment {:?}", text(deployment, "/name")));
    let objects = subject.manifests.iter().map(identity);
    deployments
        .chain(objects)
        .filter(|name| !seen.insert(name.clone()))
        .map(|name| format!("{name} is defined twice"))
        .collect()
}

fn owned_crds(subject: &Subject) -> Vec<String> {
    let crds: BTreeSet<_> = subject
        .manifests
        .iter()
        .filter(|object| text(object, "/kind") == "CustomResourceDefinition")
        .map(|object| text(object, "/metadata/name"))
        .collect();
    let owned: BTreeSet<_> = items(&subject.csv, "/spec/customresourcedefinitions/owned")
        .map(|api| text(api, "/name"))
        .collect();
    owned
        .symmetric_difference(&crds)
        .map(|name| format!("{name:?} is owned or in the bundle, but not both"))
        .collect()
}

/// OLM v0 sets OPERATOR_CONDITION_NAME, OLM v1 does not: the bundle must not depend on it.
fn environment(subject: &Subject) -> Vec<String> {
    items(&subject.csv, "/spec/install/spec/deployments")
        .flat_map(|deployment| items(deployment, "/spec/template/spec/containers"))
        .flat_map(|container| items(container, "/env"))
        .filter(|variable| {
            variable.to_string().contains("olm.targetNamespaces")
                || text(variable, "/name") == "OPERATOR_CONDITION_NAME"
        })
        .map(|variable| format!("{:?} is set by OLM v0 only", text(variable, "/name")))
        .collect()
}
