//! Every endpoint has one place, places are dense, and few of them change.

use super::*;
use proptest::prelude::*;

fn endpoint(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], 8080))
}

fn set(numbers: &BTreeSet<u16>) -> BTreeSet<SocketAddr> {
    numbers.iter().copied().map(endpoint).collect()
}

/// In this order.
fn placed(numbers: &[u16]) -> Places {
    Places::of(numbers.iter().copied().map(endpoint).collect()).unwrap()
}

/// Returns the places of a backend after it wrote the difference.
fn write(old: &Places, new: &Places) -> Vec<SocketAddr> {
    let mut held: Vec<Option<SocketAddr>> = old.iter().copied().map(Some).collect();
    held.resize(old.len().max(new.len()), None);
    for PlaceChange { place, old, new } in new.changes_from(Some(old)) {
        assert_ne!(old, new);
        assert_eq!(std::mem::replace(&mut held[place as usize], new), old);
    }
    let end = held.iter().position(Option::is_none).unwrap_or(held.len());
    assert!(held[end..].iter().all(Option::is_none), "a gap is left");
    held.into_iter().flatten().collect()
}

/// Few, so that many are equal; or many.
fn numbers() -> impl Strategy<Value = BTreeSet<u16>> {
    prop_oneof![
        prop::collection::btree_set(0u16..12, 0..10),
        prop::collection::btree_set(0u16..400, 0..300),
    ]
}

proptest! {
    #[test]
    fn a_change_of_the_set_changes_few_places(
        first in numbers(), held in numbers(), wanted in numbers(),
    ) {
        // So that those held are in no order.
        let held = set(&first).into_iter().collect::<Places>().toward(&set(&held).into_iter().collect());
        let wanted: Places = set(&wanted).into_iter().collect();
        let new = held.toward(&wanted);
        prop_assert_eq!(new.to_set(), wanted.to_set(), "each has a place");
        prop_assert_eq!(new.len(), wanted.len(), "and no second one");
        prop_assert!(wanted.iter().all(|endpoint| new.contains(endpoint)));
        prop_assert!(held.iter().all(|endpoint| new.contains(endpoint) == wanted.contains(endpoint)));
        let came = wanted.to_set().difference(&held.to_set()).count();
        let gone = held.to_set().difference(&wanted.to_set()).count();
        let changes = new.changes_from(Some(&held)).count();
        prop_assert!(changes <= 2 * (came + gone), "{changes} changes for {came} that came and {gone} that went");
        prop_assert_eq!(write(&held, &new), new.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(&new.toward(&wanted), &new, "twice is once");
        let not_in: BTreeSet<_> = new.not_in(Some(&held)).collect();
        prop_assert_eq!(not_in, wanted.to_set().difference(&held.to_set()).copied().collect());
    }

    #[test]
    fn a_plan_from_held_places_is_used_unchanged(first in numbers(), held in numbers(), wanted in numbers()) {
        let held = set(&first).into_iter().collect::<Places>().toward(&set(&held).into_iter().collect());
        let wanted = held.toward(&set(&wanted).into_iter().collect());
        prop_assert_eq!(held.closer_to(&wanted), None);
        let in_order: Places = wanted.to_set().into_iter().collect();
        let taken = held.closer_to(&in_order).unwrap_or(in_order);
        let came = taken.not_in(Some(&held)).count();
        let gone = held.not_in(Some(&taken)).count();
        prop_assert!(taken.changes_from(Some(&held)).count() <= 2 * (came + gone));
        prop_assert_eq!(taken.to_set(), wanted.to_set());
    }

    #[test]
    fn retained_endpoints_keep_their_places(held in numbers(), lost in numbers()) {
        let mut rest = set(&held).into_iter().rev().collect::<Vec<_>>();
        rest.rotate_left(held.len() / 2);
        let before = Places::of(rest).unwrap();
        let (mut after, lost) = (before.clone(), set(&lost));
        after.retain(|endpoint| !lost.contains(endpoint));
        prop_assert_eq!(after.to_set(), before.to_set().difference(&lost).copied().collect());
        prop_assert!(after.changes_from(Some(&before)).count() <= 2 * (before.len() - after.len()));
    }
}

#[test]
fn a_new_endpoint_takes_the_place_of_a_removed_one() {
    let held = placed(&[5, 1, 9, 3]);
    assert_eq!(
        held.toward(&placed(&[1, 3, 5, 7])),
        placed(&[5, 1, 7, 3]),
        "replaced"
    );
    assert_eq!(
        held.toward(&placed(&[1, 3, 9])),
        placed(&[3, 1, 9]),
        "the last one fills the gap"
    );
    assert_eq!(
        held.toward(&placed(&[1, 3, 5, 7, 9])),
        placed(&[5, 1, 9, 3, 7]),
        "the next place"
    );
    assert_eq!(held.toward(&placed(&[1, 3, 5, 9])), held, "nothing");
}

#[test]
fn an_endpoint_cannot_have_two_places() {
    assert_eq!(Places::of(vec![endpoint(2), endpoint(1), endpoint(2)]), None);
    assert_eq!(Places::of(vec![endpoint(1), endpoint(1)]), None);
    let twice: Places = [endpoint(2), endpoint(1), endpoint(2)].into_iter().collect();
    assert_eq!(twice, placed(&[1, 2]));
}
