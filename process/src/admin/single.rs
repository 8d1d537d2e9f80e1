//! The one object of a watch by name.
//!
//! Pure.

use crate::watch::Event;

/// What a watch knows about its one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Single<K> {
    /// It exists.
    Present(K),
    /// It does not exist.
    Absent,
    /// It exists and cannot be decoded.
    Unreadable(String),
}

/// Follows the events of a watch that selects one object.
#[derive(Debug, Default)]
pub(crate) struct SingleWatch {
    is_listed: bool,
}

impl SingleWatch {
    /// Returns what is known after `event`, if that is something new.
    pub(crate) fn observe<K>(&mut self, event: Event<K>) -> Option<Single<K>> {
        match event {
            Event::ListStarted => {
                self.is_listed = false;
                None
            }
            Event::Listed(object) | Event::Applied(object) => {
                self.is_listed = true;
                Some(Single::Present(object))
            }
            Event::Unreadable(unreadable) => {
                self.is_listed = true;
                Some(Single::Unreadable(unreadable.error))
            }
            Event::ListDone => (!self.is_listed).then_some(Single::Absent),
            Event::Deleted(_) => Some(Single::Absent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Applied, Deleted, ListDone, ListStarted, Listed};

    #[test]
    fn an_object_is_absent_only_after_a_complete_list_or_a_deletion() {
        let mut watch = SingleWatch::default();
        let events = [
            ListStarted,
            ListDone,
            Applied(1),
            Deleted(Box::default()),
            ListStarted,
            Listed(2),
            ListDone,
        ];
        let seen: Vec<_> = events
            .into_iter()
            .filter_map(|event| watch.observe(event))
            .collect();
        let expected = [
            Single::Absent,
            Single::Present(1),
            Single::Absent,
            Single::Present(2),
        ];
        assert_eq!(seen, expected);
    }
}
