//! Requirements that a bundle must meet before it is published: those of scorecard, preflight, the catalogs' pipelines and OLM v1,
//! without a cluster and without external programs.
//!
//! Pure. Each finding states the requirement and the remedy. `xtask/tests/bundle.rs` runs the programs of operator-framework, which
//! check more.

#[path = "checks/catalog.rs"]
pub(crate) mod catalog;
#[path = "checks/community.rs"]
pub(crate) mod community;
#[path = "checks/olm_v1.rs"]
mod olm_v1;
#[path = "checks/pipeline.rs"]
mod pipeline;
#[path = "checks/preflight.rs"]
mod preflight;
#[path = "checks/scorecard.rs"]
mod scorecard;

use olm::{Bundle, bundle};
use serde_json::Value;

/// A violation that a reviewer would reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The check, under the name that its upstream gives it.
    pub(crate) check: &'static str,
    /// The violation.
    pub(crate) message: String,
}

/// Input of the checks.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) csv: Value,
    pub(crate) manifests: Vec<Value>,
    pub(crate) annotations: Value,
}

/// Runs every check.
pub(crate) fn run(bundle: &Bundle) -> Result<Vec<Finding>, bundle::Error> {
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
pub(crate) fn names() -> Vec<&'static str> {
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

/// A check's name and function.
type Check = (&'static str, fn(&Subject) -> Vec<String>);
