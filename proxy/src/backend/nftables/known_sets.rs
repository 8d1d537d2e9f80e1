//! Sets that a namespace is known to have, so that a change need not ask the kernel for them.
//!
//! Pure, but for the state of the calling thread. What is known belongs to a generation of the ruleset, which the kernel verifies with each
//! transaction: see [`expect`](crate::netlink::generation::expect).

use super::layout::Class;
use api::Family;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Largest number of sets that are kept per namespace between two changes.
const LIMIT: usize = 32;

/// Sets of classes that exist, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownSets(BTreeSet<(Family, Class)>);

thread_local! {
    /// Sets known to the job of this thread. `None`: the job knows and learns nothing.
    static KNOWN: RefCell<Option<KnownSets>> = const { RefCell::new(None) };
}

/// Sets what the job of this thread knows at its beginning. Each job that begins has to [end](end): the next one has another namespace.
pub(crate) fn begin(known: KnownSets) {
    KNOWN.set(Some(known));
}

/// Returns what is known at the end of the job; nothing if that is too much to keep.
pub(crate) fn end() -> KnownSets {
    KNOWN
        .take()
        .filter(|known| known.0.len() <= LIMIT)
        .unwrap_or_default()
}

pub(super) fn is_known(family: Family, class: Class) -> bool {
    KNOWN.with_borrow(|known| {
        known
            .as_ref()
            .is_some_and(|known| known.0.contains(&(family, class)))
    })
}

pub(super) fn add(family: Family, classes: impl IntoIterator<Item = Class>) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.0.extend(classes.into_iter().map(|class| (family, class)));
        }
    });
}

/// Forgets the sets of a table that is replaced, or whose unused sets are removed.
pub(super) fn forget(family: Family) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.0.retain(|(of, _)| *of != family);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_known_until_they_are_forgotten_or_too_many() {
        begin(KnownSets::default());
        add(Family::V4, [Class::Count(2)]);
        add(Family::V6, [Class::Count(2)]);
        forget(Family::V4);
        assert!(!is_known(Family::V4, Class::Count(2)) && is_known(Family::V6, Class::Count(2)));
        let kept = end();
        add(Family::V6, [Class::Count(3)]);
        assert!(
            !is_known(Family::V6, Class::Count(2)) && !is_known(Family::V6, Class::Count(3)),
            "a job that did not begin knows nothing"
        );
        begin(kept.clone());
        assert_eq!(end(), kept);
        add(Family::V4, (1..100).map(Class::Count));
        assert_eq!(end(), KnownSets::default());
    }
}
