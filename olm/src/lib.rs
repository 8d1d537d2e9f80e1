//! Generates the input of the Operator Lifecycle Manager, `bundle/` and `olm/catalog`, and of Helm, `charts/`.
//!
//! | module | idea | |
//! |---|---|---|
//! | [`source`] | `config/` and `olm/` of a checkout, parsed | I/O |
//! | [`project`] | the identity of the project, and its replacement | pure, but for files |
//! | [`release`] | version, date and images of a release | |
//! | [`csv`] | the ClusterServiceVersion | pure |
//! | [`bundle`] | the files of a bundle | pure, but for reading and writing a folder |
//! | [`catalog`] | the file-based catalog | pure |
//! | [`chart`] | the Helm chart | pure, but for reading and writing a folder |
//! | [`dashboard`] | the dashboard of Grafana and of OpenShift's console, in `config/monitoring` | pure |
//! | [`graph`] | the update graph | pure |
//! | [`community`] | pull requests to the community catalogs | pure, but for writing a folder |
//! | [`npm_range`] | version ranges as these catalogs read them | pure |
//! | [`installer`] | the rights with which OLM v1 installs the bundle | pure |
//! | [`registry_v1`] | the objects that OLM v1 renders from a bundle | pure |
//!
//! Equal inputs give equal bytes. Objects are `serde_json::Value`: they are copied, not decoded.

pub mod bundle;
pub mod catalog;
pub mod chart;
pub mod community;
pub mod csv;
pub mod dashboard;
pub mod graph;
pub mod installer;
pub mod npm_range;
pub mod project;
pub mod registry_v1;
pub mod release;
pub mod source;

pub use bundle::Bundle;
pub use catalog::Catalog;
pub use chart::Chart;
pub use project::Project;
pub use release::Release;
pub use source::Source;

/// The platform on which a bundle is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// OpenShift: its console creates the namespace with its own labels.
    Openshift,
    /// Any Kubernetes, as for OperatorHub.io.
    Kubernetes,
}

/// The name of the package in catalogs, and the first part of each version's name.
pub const PACKAGE: &str = "multus-service-operator";

/// The name of a version's ClusterServiceVersion.
pub fn csv_name(version: &semver::Version) -> String {
    format!("{PACKAGE}.v{version}")
}

/// Formats `kind/name` for messages.
pub fn identity(object: &serde_json::Value) -> String {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(serde_json::Value::as_str)
            .unwrap_or("?")
    };
    format!("{} {:?}", text("/kind"), text("/metadata/name"))
}

/// The items of an array, or none.
pub fn items<'a>(value: &'a serde_json::Value, pointer: &str) -> impl Iterator<Item = &'a serde_json::Value> {
    value
        .pointer(pointer)
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
}

/// A text, or the empty one.
pub fn text<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}
