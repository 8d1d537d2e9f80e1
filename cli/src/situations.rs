//! The situations that `explain` knows: what a user sees, what `explain` says, what to do.
//!
//! Pure. One table: `explain` takes its remedies from it, its tests set each situation up, and docs/user/troubleshooting.md is written
//! from it.

mod page;
mod table;
mod template;

pub use page::page;
pub use table::SITUATIONS;
pub use template::{Values, fill, matches};

use crate::chain::{Link, Remedy, State, Topic};
use serde::Serialize;

/// A cause that `explain` can name. Scripts match on it: none is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "the table documents each for users")]
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
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Its name.
    pub cause: Cause,
    /// Where the chain has it.
    pub topic: Topic,
    /// What a user sees without `explain`.
    pub symptom: &'static str,
    /// What `explain` says; `{name}` stands for something of the case.
    pub says: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// A command that does it or shows more; may be empty.
    pub command: &'static str,
}

impl Cause {
    /// Its name in reports.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// Its row.
    pub fn situation(self) -> &'static Situation {
        let row = SITUATIONS.iter().find(|situation| situation.cause == self);
        row.expect("every cause has a row: a_cause_has_one_row")
    }

    /// A link that is broken by it, in the words of the table.
    pub fn broken(self, values: &Values) -> Link {
        self.quoted(fill(self.situation().says, values), values)
    }

    /// The same in the words of the code that decides.
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
    const NOT_SET_UP: [(Cause, &str); 1] = [(Cause::TooManyServices, "it takes 500 Services")];

    #[test]
    fn every_row_is_set_up_on_an_apiserver() {
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
    fn every_row_says_what_to_do() {
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
