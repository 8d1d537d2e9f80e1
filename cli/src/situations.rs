//! The known situations: symptom, statement of `explain`, remedy.
//!
//! Pure. `explain` takes its remedies from the table, its tests create each situation, and docs/user/troubleshooting.md is generated
//! from it.

mod page;
mod table;
mod template;

pub use page::page;
pub use table::SITUATIONS;
pub use template::{Values, fill, matches};

use crate::chain::{Link, Remedy, State, Topic};
use serde::Serialize;

/// Cause of a broken link. Scripts match on it: names must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Cause {
    ServiceNotFound,
    LabelMissing,
    LabelValue,
    AnnotationMissing,
    AnnotationMalformed,
    NetworkNotAllowed,
    ExternalName,
    InvalidSelector,
    HeadlessLabel,
    MultusMissing,
    NetworkNotFound,
    NetworkElsewhere,
    NotInstalled,
    Removed,
    Unmanaged,
    Degraded,
    NoLeader,
    SelectorMatchesNothing,
    NoPodsAttached,
    PodOnHostNetwork,
    InvalidNetworkStatus,
    NoAddress,
    FamilyMissing,
    InvalidEndpointAddress,
    DuplicateAddress,
    NotReady,
    TargetPortNotFound,
    NoEndpointSlices,
    EndpointsIgnored,
    TooManyServices,
    SelectorIgnored,
    HeadlessWithSelector,
    ConflictingEndpoints,
    NodePort,
    HintsNotGiven,
    StaleSlices,
    ClientNotFound,
    ClientNotAttached,
    ClientOnHostNetwork,
    ClientOnNamesake,
    ClientNotAllowed,
    ClientNoAddress,
    ClientStatusUnreadable,
    ClientSeveralInterfaces,
    ProxyMissing,
    ProxyNotReady,
    NodeFault,
    RulesNotApplied,
    NoLocalEndpoint,
    RulesDiffer,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Its name.
    pub cause: Cause,
    /// Topic in the chain.
    pub topic: Topic,
    /// Symptom without `explain`.
    pub symptom: &'static str,
    /// Statement of `explain`; `{name}` is a value of the case.
    pub says: &'static str,
    pub remedy: &'static str,
    /// Command of the remedy; may be empty.
    pub command: &'static str,
}

impl Cause {
    /// Returns its name in reports.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Returns its row.
    pub fn situation(self) -> &'static Situation {
        let row = SITUATIONS.iter().find(|situation| situation.cause == self);
        row.expect("every cause has a row: a_cause_has_one_row")
    }

    /// Returns a link broken by it, with the statement of the table.
    pub fn broken(self, values: &Values) -> Link {
        self.quoted(fill(self.situation().says, values), values)
    }

    /// Returns a link broken by it, with another statement.
    pub fn quoted(self, says: impl Into<String>, values: &Values) -> Link {
        let Situation {
            topic,
            remedy,
            command,
            ..
        } = *self.situation();
        let command = fill(command, values);
        Link {
            state: State::Broken,
            cause: Some(self),
            remedy: Some(Remedy {
                text: fill(remedy, values),
                commands: (!command.is_empty()).then_some(command).into_iter().collect(),
            }),
            ..Link::good(topic, says)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_cause_has_one_row() {
        let causes: BTreeSet<Cause> = SITUATIONS.iter().map(|situation| situation.cause).collect();
        assert_eq!(causes.len(), SITUATIONS.len());
        let source = include_str!("situations.rs");
        let body = source.split_once("pub enum Cause {").unwrap().1;
        let body = body.split_once('}').unwrap().0;
        let declared: BTreeSet<String> = body
            .lines()
            .map(|line| line.trim().trim_end_matches(','))
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        let in_table: BTreeSet<String> = causes.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(declared, in_table);
    }

    /// Rows without a test, and the reason.
    const NOT_SET_UP: [(Cause, &str); 2] = [
        (Cause::TooManyServices, "it takes 500 Services"),
        (
            Cause::RulesDiffer,
            "it takes a node with rules: e2e/tests/services.rs",
        ),
    ];

    #[test]
    fn every_row_is_tested_on_an_apiserver() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apiserver");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let sources: String = files
            .filter(|path| path.is_file())
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        for Situation { cause, .. } in SITUATIONS {
            let is_set_up = sources.contains(&format!("Cause::{}", cause.as_str()));
            let is_excused = NOT_SET_UP.iter().any(|(excused, _)| excused == cause);
            assert!(is_set_up != is_excused, "{cause:?}");
        }
    }

    #[test]
    fn every_row_has_a_remedy() {
        for Situation {
            cause,
            symptom,
            says,
            remedy,
            ..
        } in SITUATIONS
        {
            assert!(
                !symptom.is_empty() && !says.is_empty() && !remedy.is_empty(),
                "{cause:?}"
            );
            assert!(
                !symptom.contains('|') && !says.contains('|'),
                "{cause:?} breaks the page's table"
            );
        }
    }
}
