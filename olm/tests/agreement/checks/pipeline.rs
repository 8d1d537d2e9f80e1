//! Static checks of the community catalogs' pipelines for a bundle.
//! <https://github.com/redhat-openshift-ecosystem/operator-pipelines>

use super::{Check, Subject};
use olm::{PACKAGE, items, text};

pub(super) const CHECKS: &[Check] = &[
    ("check_required_fields", required_fields),
    ("check_recommended_fields", recommended_fields),
    ("check_operator_name", operator_name),
    ("check_minkubeversion", openshift_versions),
    ("check_network_policy_presence", network_policy),
    ("check_one_icon", icon),
];

fn required_fields(subject: &Subject) -> Vec<String> {
    let spec = &subject.csv["spec"];
    let missing = ["displayName", "description", "version", "minKubeVersion"]
        .into_iter()
        .filter(|field| spec[field].as_str().is_none_or(str::is_empty));
    let empty = ["icon", "maintainers", "links", "keywords", "relatedImages"]
        .into_iter()
        .filter(|field| items(spec, &format!("/{field}")).next().is_none());
    let nameless = text(spec, "/provider/name").is_empty().then_some("provider.name");
    missing
        .chain(empty)
        .chain(nameless)
        .map(|field| format!("spec.{field} is missing"))
        .collect()
}

fn recommended_fields(subject: &Subject) -> Vec<String> {
    let annotations = &subject.csv["metadata"]["annotations"];
    [
        "capabilities",
        "categories",
        "containerImage",
        "createdAt",
        "repository",
        "support",
        "description",
    ]
    .into_iter()
    .filter(|key| annotations[key].as_str().is_none_or(str::is_empty))
    .map(|key| format!("the annotation {key} is missing"))
    .collect()
}

fn operator_name(subject: &Subject) -> Vec<String> {
    let package = text(
        &subject.annotations,
        "/operators.operatorframework.io.bundle.package.v1",
    );
    let wanted = format!("{PACKAGE}.v{}", text(&subject.csv, "/spec/version"));
    let name = text(&subject.csv, "/metadata/name");
    let mut found = Vec::new();
    if package != PACKAGE {
        found.push(format!("the package is {package:?}, not {PACKAGE:?}"));
    }
    if name != wanted {
        found.push(format!(
            "the ClusterServiceVersion is named {name:?}, not {wanted:?}"
        ));
    }
    found
}

/// OpenShift 4.N runs Kubernetes 1.(N + 13); both limit the clusters that accept the bundle and must agree.
fn openshift_versions(subject: &Subject) -> Vec<String> {
    let minor = |version: &str, major: &str| -> Option<u32> {
        version
            .strip_prefix(major)?
            .split(['.', '-'])
            .next()?
            .parse()
            .ok()
    };
    let openshift = text(&subject.annotations, "/com.redhat.openshift.versions");
    let kubernetes = text(&subject.csv, "/spec/minKubeVersion");
    match (minor(openshift, "v4."), minor(kubernetes, "1.")) {
        (Some(openshift), Some(kubernetes)) if openshift + 13 == kubernetes => Vec::new(),
        _ => vec![format!(
            "com.redhat.openshift.versions {openshift:?} and minKubeVersion {kubernetes:?} do not agree"
        )],
    }
}

fn network_policy(subject: &Subject) -> Vec<String> {
    let policies = subject
        .manifests
        .iter()
        .filter(|object| text(object, "/kind") == "NetworkPolicy");
    policies
        .map(|policy| {
            format!(
                "{:?} is a NetworkPolicy: let the operator apply it",
                text(policy, "/metadata/name")
            )
        })
        .collect()
}

fn icon(subject: &Subject) -> Vec<String> {
    let icons = items(&subject.csv, "/spec/icon").count();
    (icons > 1)
        .then(|| format!("expected exactly one icon, found {icons}"))
        .into_iter()
        .collect()
}
