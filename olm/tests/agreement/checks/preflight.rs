//! The static checks of openshift-preflight for operators, which certification runs.
//! <https://github.com/redhat-openshift-ecosystem/openshift-preflight>

use super::{Check, Subject};
use olm::{items, text};
use serde_json::Value;

pub(super) const CHECKS: &[Check] = &[
    ("RequiredAnnotations", required_annotations),
    ("AllImageRefsInRelatedImages", related_images),
    ("FollowsRestrictedNetworkEnablementGuidelines", restricted_network),
    ("SecurityContextConstraintsInCSV", security_context_constraints),
];

const FEATURES: [&str; 7] = [
    "disconnected",
    "fips-compliant",
    "proxy-aware",
    "tls-profiles",
    "token-auth-aws",
    "token-auth-azure",
    "token-auth-gcp",
];

fn required_annotations(subject: &Subject) -> Vec<String> {
    let annotations = &subject.csv["metadata"]["annotations"];
    FEATURES
        .map(|feature| format!("features.operators.openshift.io/{feature}"))
        .into_iter()
        .filter(|key| !["true", "false"].contains(&annotations[key].as_str().unwrap_or_default()))
        .map(|key| format!("the annotation {key} is neither \"true\" nor \"false\""))
        .collect()
}

fn containers(csv: &Value) -> impl Iterator<Item = &Value> {
    items(csv, "/spec/install/spec/deployments").flat_map(|deployment| {
        [
            "/spec/template/spec/containers",
            "/spec/template/spec/initContainers",
        ]
        .into_iter()
        .flat_map(|list| items(deployment, list))
    })
}

fn operand_images(csv: &Value) -> impl Iterator<Item = &Value> {
    containers(csv)
        .flat_map(|container| items(container, "/env"))
        .filter(|variable| text(variable, "/name").starts_with("RELATED_IMAGE_"))
}

fn related_images(subject: &Subject) -> Vec<String> {
    let related: Vec<_> = items(&subject.csv, "/spec/relatedImages")
        .map(|image| text(image, "/image"))
        .collect();
    let used = containers(&subject.csv)
        .map(|container| text(container, "/image"))
        .chain(operand_images(&subject.csv).map(|variable| text(variable, "/value")))
        .chain([text(&subject.csv, "/metadata/annotations/containerImage")]);
    used.filter(|image| !related.contains(image))
        .map(|image| format!("{image:?} is not in relatedImages"))
        .collect()
}

fn restricted_network(subject: &Subject) -> Vec<String> {
    let mut found = Vec::new();
    if text(
        &subject.csv,
        "/metadata/annotations/features.operators.openshift.io~1disconnected",
    ) != "true"
    {
        found.push("the feature disconnected is not \"true\"".to_owned());
    }
    let images: Vec<_> = items(&subject.csv, "/spec/relatedImages")
        .map(|image| text(image, "/image"))
        .collect();
    if images.is_empty() {
        found.push("relatedImages is empty".to_owned());
    }
    found.extend(
        images
            .iter()
            .filter(|image| !image.contains("@sha256:"))
            .map(|image| format!("{image:?} is not pinned by digest: `make release` does that")),
    );
    if operand_images(&subject.csv).next().is_none() {
        found.push("no container has an environment variable RELATED_IMAGE_*".to_owned());
    }
    found
}

/// The operator needs no SecurityContextConstraints; it binds the proxy's itself. More than one is rejected, one is reviewed
/// manually.
fn security_context_constraints(subject: &Subject) -> Vec<String> {
    items(&subject.csv, "/spec/install/spec/clusterPermissions")
        .flat_map(|permission| items(permission, "/rules"))
        .filter(|rule| items(rule, "/resources").any(|resource| resource == "securitycontextconstraints"))
        .map(|rule| format!("the operator asks for security context constraints: {rule}"))
        .collect()
}
