//! What others check before a bundle may be published, as far as it needs no cluster and none of their programs.
//!
//! Pure. Each check states what it wants and names the remedy. The programs of operator-framework, which check more, are run in
//! `e2e/tests/bundle.rs`.

pub mod catalog;
mod olm_v1;
mod pipeline;
mod preflight;
mod scorecard;

use crate::{Bundle, bundle};
use serde_json::Value;

/// Something that a reviewer would reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check, by the name that its owner gives it.
    pub check: &'static str,
    /// What is wrong.
    pub message: String,
}

/// What checks look at.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) csv: Value,
    pub(crate) manifests: Vec<Value>,
    pub(crate) annotations: Value,
}

/// Runs every check.
pub fn run(bundle: &Bundle) -> Result<Vec<Finding>, bundle::Error> {
    let subject = Subject {
        csv: bundle.csv()?,
        manifests: bundle.manifests()?,
        annotations: bundle.annotations()?,
    };
    let suites = [
        scorecard::CHECKS,
        preflight::CHECKS,
        pipeline::CHECKS,
        olm_v1::CHECKS,
    ];
    let checks = suites.into_iter().flatten();
    Ok(checks
        .flat_map(|(check, run)| {
            run(&subject)
                .into_iter()
                .map(|message| Finding { check, message })
        })
        .collect())
}

/// The names of all checks.
pub fn names() -> Vec<&'static str> {
    [
        scorecard::CHECKS,
        preflight::CHECKS,
        pipeline::CHECKS,
        olm_v1::CHECKS,
    ]
    .into_iter()
    .flatten()
    .map(|(name, _)| *name)
    .collect()
}

/// A check's name, and what it finds.
type Check = (&'static str, fn(&Subject) -> Vec<String>);
