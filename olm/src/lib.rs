//! What the Operator Lifecycle Manager reads: `bundle/` and `olm/catalog`, generated, and the rules that they must keep.
//!
//! | module | idea | |
//! |---|---|---|
//! | [`source`] | `config/` and `olm/` of a checkout, parsed | I/O |
//! | [`release`] | version, date and images of a release | |
//! | [`csv`] | the ClusterServiceVersion | pure |
//! | [`bundle`] | the files of a bundle | pure, but for reading and writing a folder |
//! | [`catalog`] | the file-based catalog | pure |
//! | [`graph`] | which version is updated to which | pure |
//! | [`checks`] | what scorecard, preflight, the catalogs' pipelines and OLM v1 ask of a bundle | pure |
//! | [`plain`] | the objects that OLM v1 makes of a bundle | pure |
//!
//! Equal inputs give equal bytes. Objects are `serde_json::Value`: they are copied, not understood.

pub mod bundle;
pub mod catalog;
pub mod checks;
pub mod csv;
pub mod graph;
pub mod plain;
pub mod release;
pub mod source;

pub use bundle::Bundle;
pub use catalog::Catalog;
pub use release::Release;
pub use source::Source;

/// The name of the package in catalogs, and the first part of each version's name.
pub const PACKAGE: &str = "multus-service-operator";

/// The ClusterServiceVersion of a version.
pub fn csv_name(version: &semver::Version) -> String {
    format!("{PACKAGE}.v{version}")
}

/// `kind/name`, for messages.
pub(crate) fn identity(object: &serde_json::Value) -> String {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(serde_json::Value::as_str)
            .unwrap_or("?")
    };
    format!("{} {:?}", text("/kind"), text("/metadata/name"))
}

/// The items of an array that may be missing.
pub fn items<'a>(value: &'a serde_json::Value, pointer: &str) -> impl Iterator<Item = &'a serde_json::Value> {
    value
        .pointer(pointer)
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
}

/// A text that may be missing.
pub fn text<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}
