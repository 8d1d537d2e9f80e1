//! Static checks of the community catalogs' pipelines for a catalog and the bundle that is added to it.
//! <https://github.com/redhat-openshift-ecosystem/operator-pipelines>

use super::Finding;
use olm::{Bundle, Catalog, bundle, graph, items, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Input of the checks.
struct Subject<'a> {
    blobs: &'a [Value],
    csv: Value,
    annotations: Value,
}

type Check = (&'static str, fn(&Subject<'_>) -> Vec<String>);

const CHECKS: &[Check] = &[
    ("check_no_bundle_object", no_bundle_object),
    ("check_catalog_pinned", pinned),
    ("check_replaces_availability", replaces),
    ("check_channels", channels),
    ("check_dangling_bundles", dangling),
    ("maturity", maturity),
];

/// Runs every check on a catalog and the newest bundle of it.
pub(crate) fn run(catalog: &Catalog, bundle: &Bundle) -> Result<Vec<Finding>, bundle::Error> {
    let subject = Subject {
        blobs: &catalog.blobs,
        csv: bundle.csv()?,
        annotations: bundle.annotations()?,
    };
    let found = |(check, run): &Check| -> Vec<Finding> {
        let messages = run(&subject).into_iter();
        messages.map(|message| Finding { check, message }).collect()
    };
    Ok(CHECKS.iter().flat_map(found).collect())
}

/// The names of all checks.
pub(crate) fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|(name, _)| *name).collect()
}

fn bundles<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a Value> {
    let blobs = subject.blobs.iter();
    blobs.filter(|blob| text(blob, "/schema") == "olm.bundle")
}

/// OpenShift 4.17 and newer require `olm.csv.metadata` instead.
fn no_bundle_object(subject: &Subject<'_>) -> Vec<String> {
    bundles(subject)
        .filter(|blob| items(blob, "/properties").any(|property| property["type"] == "olm.bundle.object"))
        .map(|blob| format!("{:?} has a property olm.bundle.object", text(blob, "/name")))
        .collect()
}

/// Checks the newest bundle: published ones are not rewritten.
fn pinned(subject: &Subject<'_>) -> Vec<String> {
    let ours = bundles(subject).find(|blob| blob["name"] == subject.csv["metadata"]["name"]);
    let Some(ours) = ours else {
        return vec![format!(
            "the catalog lacks {:?}",
            text(&subject.csv, "/metadata/name")
        )];
    };
    let related = items(ours, "/relatedImages").map(|image| text(image, "/image"));
    related
        .chain([text(ours, "/image")])
        .filter(|image| !image.contains("@sha256:"))
        .map(|image| format!("{image:?} is not pinned by digest: `make release` does that"))
        .collect()
}

fn replaces(subject: &Subject<'_>) -> Vec<String> {
    let before = text(&subject.csv, "/spec/replaces");
    let is_there = before.is_empty() || graph::bundles(subject.blobs).contains(before);
    (!is_there)
        .then(|| {
            format!("it replaces {before:?}, which the catalog lacks: `olm keep` stores what was released")
        })
        .into_iter()
        .collect()
}

/// The bundle must name channels in which the catalog has it. It may lack one to which it was promoted.
fn channels(subject: &Subject<'_>) -> Vec<String> {
    let name = text(&subject.csv, "/metadata/name");
    let channels = graph::channels(subject.blobs);
    let with_it = channels.iter().filter(|channel| channel.entry(name).is_some());
    let listed: BTreeSet<_> = with_it.map(|channel| channel.name.as_str()).collect();
    let key = "/operators.operatorframework.io.bundle.channels.v1";
    let annotated: BTreeSet<_> = text(&subject.annotations, key).split(',').collect();
    (!listed.is_superset(&annotated))
        .then(|| format!("the bundle names the channels {annotated:?}, the catalog has it in {listed:?}"))
        .into_iter()
        .collect()
}

fn dangling(subject: &Subject<'_>) -> Vec<String> {
    let channels = graph::channels(subject.blobs);
    let in_none = |name: &&str| channels.iter().all(|channel| channel.entry(name).is_none());
    graph::bundles(subject.blobs)
        .into_iter()
        .filter(in_none)
        .map(|name| format!("{name:?} is in no channel"))
        .collect()
}

/// No release candidate is in a stable channel, and a stable channel is the default one.
fn maturity(subject: &Subject<'_>) -> Vec<String> {
    let channels = graph::channels(subject.blobs);
    let stable: Vec<_> = channels.iter().filter(|channel| channel.is_stable()).collect();
    let is_alpha = |blob: &&Value| {
        items(blob, "/properties").any(|property| text(property, "/value/maturity") == "alpha")
    };
    let mut found: Vec<_> = bundles(subject)
        .filter(is_alpha)
        .map(|blob| text(blob, "/name"))
        .filter(|name| stable.iter().any(|channel| channel.entry(name).is_some()))
        .map(|name| format!("{name:?} is alpha and in a stable channel"))
        .collect();
    let default = graph::default_channel(subject.blobs);
    if !stable.is_empty() && stable.iter().all(|channel| channel.name != default) {
        found.push(format!(
            "the default channel is {default:?}, though there is a stable one"
        ));
    }
    found
}
