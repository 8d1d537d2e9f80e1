//! Deduplication of Events: the problems of each Service that have one.
//!
//! Pure. A problem gets one Event while it exists: from this process, and, since the Service's condition contains it too, from the
//! next one.

use crate::service_status::problem::Problem;
use api::ObjectName;
use process::events::{Published, Repeats};
use std::collections::HashMap;

/// Published problems per managed Service, with its UID.
#[derive(Debug, Default)]
pub(super) struct PublishedProblems(HashMap<ObjectName, (Option<String>, Published<Problem>)>);

impl Repeats for Problem {
    fn repeats(&self, earlier: &Self) -> bool {
        self.is_same(earlier)
    }
}

impl PublishedProblems {
    /// Returns the problems that need an Event now. After a restart an unchanged condition counts as published.
    pub(super) fn unpublished(
        &self,
        key: &ObjectName,
        uid: Option<&str>,
        problems: &[Problem],
        condition_changes: bool,
    ) -> Vec<Problem> {
        let known = self.0.get(key).filter(|(known, _)| known.as_deref() == uid);
        match known {
            Some((_, published)) => problems
                .iter()
                .filter(|problem| !published.contains(problem))
                .cloned()
                .collect(),
            None if condition_changes => problems.to_vec(),
            None => Vec::new(),
        }
    }

    /// UID of a Service whose status has been published.
    pub(super) fn uid(&self, key: &ObjectName) -> Option<String> {
        self.0.get(key)?.0.clone()
    }

    /// Adds problems that were published, before a failure. Earlier ones stay until the next complete publication.
    pub(super) fn record_some(&mut self, key: &ObjectName, uid: Option<&str>, more: Vec<Problem>) {
        let Some(uid) = uid.filter(|_| !more.is_empty()) else {
            return;
        };
        let (known, published) = self.0.entry(key.clone()).or_default();
        if known.as_deref() != Some(uid) {
            *known = Some(uid.to_owned());
            *published = Published::default();
        }
        published.extend(more);
    }

    /// Replaces the published problems: others no longer exist.
    pub(super) fn record(&mut self, key: &ObjectName, uid: Option<String>, problems: Vec<Problem>) {
        if uid.is_some() {
            self.0.insert(key.clone(), (uid, problems.into()));
        } else {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_status::problem::Reason;

    #[test]
    fn a_problem_is_published_once_while_it_exists_and_again_when_it_comes_back() {
        let key = ObjectName::new("shop", "web");
        let bad = vec![Problem::new(Reason::InvalidNetwork, "bad")];
        let uid = Some("u1".to_owned());
        let mut published = PublishedProblems::default();
        assert_eq!(published.unpublished(&key, Some("u1"), &bad, true), bad);
        published.record(&key, uid.clone(), bad.clone());
        assert_eq!(published.unpublished(&key, Some("u1"), &bad, false), []);
        published.record(&key, uid, vec![]);
        assert_eq!(
            published.unpublished(&key, Some("u1"), &bad, true),
            bad,
            "it came back"
        );
    }

    #[test]
    fn a_problem_that_is_seen_on_another_pod_is_not_published_again() {
        let key = ObjectName::new("shop", "web");
        let on = |pod: &str| vec![Problem::new(Reason::NoPodsAttached, "no pod is attached").seen_on([pod])];
        let mut published = PublishedProblems::default();
        published.record(&key, Some("u1".into()), on("web-1"));
        assert_eq!(published.unpublished(&key, Some("u1"), &on("web-2"), false), []);
    }

    /// A first Event was written, the condition was rejected: the next attempt publishes only the rest.
    #[test]
    fn events_published_before_a_failure_are_not_published_again() {
        let key = ObjectName::new("shop", "web");
        let both = vec![
            Problem::new(Reason::InvalidNetwork, "bad"),
            Problem::new(Reason::NoPodsAttached, "worse"),
        ];
        let mut published = PublishedProblems::default();
        published.record_some(&key, Some("u1"), both[..1].to_vec());
        assert_eq!(published.unpublished(&key, Some("u1"), &both, true), both[1..]);
        published.record_some(&key, Some("u2"), vec![]);
        assert_eq!(
            published.unpublished(&key, Some("u2"), &both, true),
            both,
            "another Service"
        );
    }

    #[test]
    fn a_restart_repeats_no_event_that_the_condition_contains() {
        let key = ObjectName::new("shop", "web");
        let bad = vec![Problem::new(Reason::InvalidNetwork, "bad")];
        assert_eq!(
            PublishedProblems::default().unpublished(&key, Some("u1"), &bad, false),
            []
        );
    }

    #[test]
    fn problems_of_another_service_of_the_same_name_are_published() {
        let key = ObjectName::new("shop", "web");
        let bad = vec![Problem::new(Reason::InvalidNetwork, "bad")];
        let mut published = PublishedProblems::default();
        published.record(&key, Some("u1".into()), bad.clone());
        assert_eq!(published.unpublished(&key, Some("u2"), &bad, true), bad);
    }
}
