//! What the owner of each Service has been told.
//!
//! Pure. Nothing is told twice while it holds: not by this process, and, since the Service's condition says it too, not by the next one.

use crate::objects::ObjectKey;
use crate::service_status::problem::Problem;
use std::collections::HashMap;

/// Remembers per Service (its UID) what still holds.
#[derive(Debug, Default)]
pub(super) struct PublishedProblems(HashMap<ObjectKey, (Option<String>, Vec<Problem>)>);

impl PublishedProblems {
    /// Returns the problems that need an Event now. After a restart an unchanged condition counts as published.
    pub(super) fn unpublished(
        &self,
        key: &ObjectKey,
        uid: Option<&str>,
        problems: &[Problem],
        condition_changes: bool,
    ) -> Vec<Problem> {
        let known = self.0.get(key).filter(|(known, _)| known.as_deref() == uid);
        match known {
            Some((_, published)) => problems
                .iter()
                .filter(|problem| !published.iter().any(|published| published.is_same(problem)))
                .cloned()
                .collect(),
            None if condition_changes => problems.to_vec(),
            None => Vec::new(),
        }
    }

    /// The UID of a Service that has been told something, or its condition.
    pub(super) fn uid(&self, key: &ObjectKey) -> Option<String> {
        self.0.get(key)?.0.clone()
    }

    /// This much has been said, and more is to follow. What was said before it still holds, or will be told from.
    pub(super) fn record_some(&mut self, key: &ObjectKey, uid: Option<&str>, more: Vec<Problem>) {
        let Some(uid) = uid.filter(|_| !more.is_empty()) else {
            return;
        };
        let (known, published) = self.0.entry(key.clone()).or_default();
        if known.as_deref() != Some(uid) {
            *known = Some(uid.to_owned());
            published.clear();
        }
        published.extend(more);
    }

    /// All this has been said; what is not in it holds no more.
    pub(super) fn record(&mut self, key: &ObjectKey, uid: Option<String>, problems: Vec<Problem>) {
        if uid.is_some() {
            self.0.insert(key.clone(), (uid, problems));
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
    fn a_thing_is_told_once_while_it_holds_and_again_when_it_comes_back() {
        let key = ObjectKey::new("shop", "web");
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
    fn a_thing_that_is_seen_on_another_pod_is_no_news() {
        let key = ObjectKey::new("shop", "web");
        let on = |pod: &str| vec![Problem::new(Reason::NoPodsAttached, "no pod is attached").seen_on([pod])];
        let mut published = PublishedProblems::default();
        published.record(&key, Some("u1".into()), on("web-1"));
        assert_eq!(published.unpublished(&key, Some("u1"), &on("web-2"), false), []);
    }

    /// A first Event was written, the condition was rejected: at the next try only the rest is told.
    #[test]
    fn what_was_said_before_a_failure_is_not_said_again() {
        let key = ObjectKey::new("shop", "web");
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
    fn a_restart_repeats_nothing_that_the_condition_says() {
        let key = ObjectKey::new("shop", "web");
        let bad = vec![Problem::new(Reason::InvalidNetwork, "bad")];
        assert_eq!(
            PublishedProblems::default().unpublished(&key, Some("u1"), &bad, false),
            []
        );
    }

    #[test]
    fn another_service_of_the_same_name_is_reported_again() {
        let key = ObjectKey::new("shop", "web");
        let bad = vec![Problem::new(Reason::InvalidNetwork, "bad")];
        let mut published = PublishedProblems::default();
        published.record(&key, Some("u1".into()), bad.clone());
        assert_eq!(published.unpublished(&key, Some("u2"), &bad, true), bad);
    }
}
