use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn name(n: u8) -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: format!("s{n}"),
    }
}

fn network(n: u8) -> Network {
    Network::of_label(&format!("{:016x}", u64::from(n) + 1))
}

fn item(n: u8, version: u64, on: Option<u8>) -> Item {
    Item {
        name: name(n),
        version,
        network: on.map(network),
        slice: None,
    }
}

fn on(networks: &[u8]) -> Scope {
    Scope::Networks(networks.iter().copied().map(network).collect())
}

fn apply(n: u8) -> Output {
    Output::Apply((name(n), None))
}

fn begun(scope: Scope, items: Vec<Item>, version: u64) -> Slices {
    let mut slices = Slices::default();
    slices.another_begins();
    slices.switch(scope, items, version);
    slices
}

#[test]
fn the_first_list_is_a_reset_and_later_ones_are_differences() {
    let mut slices = Slices::default();
    slices.another_begins();
    let outputs = slices.switch(on(&[1]), vec![item(1, 5, Some(1)), item(2, 6, Some(1))], 7);
    assert_eq!(outputs, [Output::Reset(vec![(name(1), None), (name(2), None)])]);
    slices.another_begins();
    let list = vec![item(1, 5, Some(1)), item(2, 8, Some(1)), item(3, 4, Some(2))];
    assert_eq!(slices.switch(on(&[1, 2]), list, 9), [apply(2), apply(3)]);
    slices.another_begins();
    assert_eq!(
        slices.switch(on(&[2]), vec![item(3, 4, Some(2))], 10),
        [Output::Delete(name(1)), Output::Delete(name(2))]
    );
}

/// The list of the next watch was made before what the watch that runs reported last.
#[test]
fn a_list_older_than_reported_events_reverts_nothing() {
    let now = Instant::now();
    let mut slices = begun(
        Scope::Everything,
        vec![item(1, 5, Some(1)), item(2, 6, Some(1))],
        7,
    );
    slices.another_begins();
    assert_eq!(
        slices.take(Change::Apply(item(1, 11, Some(1))), 0, now),
        [apply(1)]
    );
    assert_eq!(
        slices.take(Change::Delete(item(2, 12, Some(1))), 0, now),
        [Output::Delete(name(2))]
    );
    assert_eq!(
        slices.take(Change::Apply(item(3, 13, Some(1))), 0, now),
        [apply(3)]
    );
    let list = vec![item(1, 5, Some(1)), item(2, 6, Some(1))];
    assert_eq!(slices.switch(on(&[1]), list, 10), []);
    // Repeated events of the next watch change nothing.
    for event in [
        Change::Apply(item(1, 11, Some(1))),
        Change::Apply(item(2, 9, Some(1))),
        Change::Delete(item(2, 12, Some(1))),
        Change::Apply(item(3, 13, Some(1))),
    ] {
        assert_eq!(slices.take(event, 0, now), []);
    }
    assert_eq!(
        slices.take(Change::Apply(item(2, 14, Some(1))), 0, now),
        [apply(2)]
    );
}

/// A controller of an earlier release takes the label away: the slice leaves the narrow watch, and the wide one, which follows, has it.
#[test]
fn a_slice_that_loses_its_label_stays_until_the_wide_watch_lists_it() {
    let now = Instant::now();
    let mut slices = begun(on(&[1]), vec![item(1, 5, Some(1))], 5);
    assert_eq!(slices.take(Change::Delete(item(1, 8, Some(1))), 0, now), []);
    slices.another_begins();
    assert_eq!(slices.release(true, now + HOLD), []);
    assert_eq!(
        slices.switch(Scope::Everything, vec![item(1, 8, None)], 9),
        [apply(1)]
    );
    assert!(slices.has_unlabelled());
    assert_eq!(slices.release(false, now + LONGEST_HOLD), []);
}

#[test]
fn a_slice_that_left_a_narrow_watch_is_deleted_unless_it_returns() {
    let now = Instant::now();
    let mut slices = begun(on(&[1]), vec![item(1, 5, Some(1)), item(2, 5, Some(1))], 5);
    slices.take(Change::Delete(item(1, 8, Some(1))), 0, now);
    slices.take(Change::Delete(item(2, 8, Some(1))), 0, now);
    assert_eq!(
        slices.take(Change::Apply(item(2, 9, Some(1))), 0, now),
        [apply(2)]
    );
    assert_eq!(slices.due(false), Some(now + HOLD));
    assert_eq!(slices.release(false, now + HOLD), [Output::Delete(name(1))]);
    assert_eq!(slices.due(false), None);
}

/// Then versions are lower than before: listed and later versions are accepted.
#[test]
fn after_a_restore_of_etcd_any_version_of_the_list_is_accepted() {
    let now = Instant::now();
    let before = || begun(on(&[1]), vec![item(1, 50, Some(1)), item(2, 60, Some(1))], 70);
    let restored = || vec![item(1, 20, Some(1))];
    let want = [apply(1), Output::Delete(name(2))];
    let mut slices = before();
    assert_eq!(slices.take(Change::Reset(restored()), 30, now), want);
    assert_eq!(
        slices.take(Change::Apply(item(1, 31, Some(1))), 0, now),
        [apply(1)]
    );
    let mut slices = before();
    slices.another_begins();
    assert_eq!(slices.switch(on(&[1, 2]), restored(), 30), want);
    assert_eq!(
        slices.take(Change::Apply(item(2, 31, Some(1))), 0, now),
        [apply(2)]
    );
}

#[test]
fn versions_that_left_are_kept_only_while_another_watch_lists() {
    let now = Instant::now();
    let items = (0..100).map(|n| item(n, 1, Some(1))).collect();
    let mut slices = begun(Scope::Everything, items, 1);
    for n in 0..100 {
        slices.take(Change::Delete(item(n, 100 + u64::from(n), Some(1))), 0, now);
    }
    assert!(slices.left.is_empty() && slices.known.is_empty());
}

/// Returns a slice after a write.
#[derive(Clone, Copy, Debug)]
enum State {
    Deleted,
    Unlabelled,
    On(u8),
}

#[derive(Clone, Debug)]
enum Step {
    /// A write of this slice at the API server.
    Write(u8, State),
    /// The watch that feeds the driver reports its next event.
    Report,
    /// The watch that feeds the driver lists again.
    Relist,
    /// Another watch begins to list, of these networks or of everything.
    Begin(Option<BTreeSet<u8>>),
    /// Its list arrives.
    Switch,
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        2 => Just(State::Deleted),
        1 => Just(State::Unlabelled),
        5 => (0..3_u8).prop_map(State::On),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let networks = proptest::collection::btree_set(0..3_u8, 1..3);
    prop_oneof![
        4 => (0..6_u8, any_state()).prop_map(|(n, state)| Step::Write(n, state)),
        4 => Just(Step::Report),
        1 => Just(Step::Relist),
        1 => proptest::option::weighted(0.7, networks).prop_map(Step::Begin),
        2 => Just(Step::Switch),
    ]
}

type World = BTreeMap<u8, (u64, Option<u8>)>;

/// An API server: every state it had.
#[derive(Default)]
struct Server {
    history: Vec<World>,
}

impl Server {
    fn version(&self) -> u64 {
        self.history.len() as u64
    }

    fn at(&self, version: u64) -> World {
        let index = usize::try_from(version).unwrap();
        index
            .checked_sub(1)
            .map(|index| self.history[index].clone())
            .unwrap_or_default()
    }

    fn write(&mut self, n: u8, state: State) {
        let mut world = self.at(self.version());
        let version = self.version() + 1;
        match state {
            State::On(network) => world.insert(n, (version, Some(network))),
            State::Unlabelled => world.insert(n, (version, None)),
            State::Deleted => world.remove(&n),
        };
        self.history.push(world);
    }

    fn list(&self, scope: &Scope, version: u64) -> Vec<Item> {
        let all = self.at(version).into_iter();
        let listed = all.filter(|(_, (_, on))| scope.has(on.map(network)));
        listed.map(|(n, (version, on))| item(n, version, on)).collect()
    }

    /// The event of a version in a scope, as the API server makes it.
    fn event(&self, scope: &Scope, version: u64) -> Option<ItemChange> {
        let (before, after) = (self.at(version - 1), self.at(version));
        let changed = (0..6).find(|n| before.get(n) != after.get(n))?;
        let is_in = |world: &World| {
            world
                .get(&changed)
                .is_some_and(|(_, on)| scope.has(on.map(network)))
        };
        match (is_in(&before), is_in(&after)) {
            (_, true) => Some(Change::Apply(item(changed, version, after[&changed].1))),
            (true, false) => Some(Change::Delete(item(changed, version, before[&changed].1))),
            (false, false) => None,
        }
    }
}

/// Runs the steps; after each, `check` sees what the driver knows, by slice, and what the watches have shown.
fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let mut server = Server::default();
    let mut slices = Slices::default();
    let mut driver: BTreeMap<ObjectName, u64> = BTreeMap::new();
    // Up to which version the watch that runs has reported.
    let mut reported = 0;
    let mut next: Option<(Scope, u64)> = None;
    for step in steps {
        let outputs = match step {
            Step::Write(n, state) => {
                server.write(n, state);
                Vec::new()
            }
            Step::Report if reported < server.version() && slices.is_begun() => {
                reported += 1;
                let event = server.event(slices.scope(), reported);
                event.map(|event| slices.take(event, 0, now)).unwrap_or_default()
            }
            Step::Relist if slices.is_begun() => {
                reported = server.version();
                let items = server.list(slices.scope(), reported);
                slices.take(Change::Reset(items), reported, now)
            }
            Step::Begin(networks) if next.is_none() => {
                let scope = networks.map_or(Scope::Everything, |networks| {
                    Scope::Networks(networks.into_iter().map(network).collect())
                });
                slices.another_begins();
                // As of now, which is not older than what was reported.
                next = Some((scope, server.version()));
                Vec::new()
            }
            Step::Switch if next.is_some() => {
                let (scope, version) = next.take().unwrap();
                let items = server.list(&scope, version);
                reported = version;
                slices.switch(scope, items, version)
            }
            _ => Vec::new(),
        };
        for output in outputs {
            match output {
                Output::Apply((name, _)) => {
                    let version = slices.known[&name].version;
                    let before = driver.insert(name.clone(), version);
                    prop_assert!(before.is_none_or(|before| before < version), "{name} went back");
                }
                Output::Delete(name) => {
                    prop_assert!(driver.remove(&name).is_some(), "{name} was not there");
                }
                Output::Reset(all) => {
                    driver = all
                        .into_iter()
                        .map(|(name, _)| (name.clone(), slices.known[&name].version))
                        .collect();
                }
            }
        }
        // A slice that never left the scope is never missing.
        let (scope, current) = (slices.scope().clone(), server.version());
        for (n, (_, on)) in server.at(current) {
            let always = (reported..=current).all(|version| {
                server
                    .at(version)
                    .get(&n)
                    .is_some_and(|(_, then)| scope.has(then.map(network)))
            });
            if slices.is_begun() && always && scope.has(on.map(network)) {
                prop_assert!(driver.contains_key(&name(n)), "{n} is missing");
            }
        }
        let known: BTreeSet<_> = slices.known.keys().collect();
        prop_assert_eq!(known, driver.keys().collect());
        let unlabelled = slices.known.values().filter(|known| known.network.is_none());
        prop_assert_eq!(slices.unlabelled, unlabelled.count());
    }
    if !slices.is_begun() {
        return Ok(());
    }
    for version in reported + 1..=server.version() {
        if let Some(event) = server.event(slices.scope(), version) {
            slices.take(event, 0, now);
        }
    }
    slices.release(false, now + LONGEST_HOLD);
    let want: BTreeMap<_, _> = server
        .list(slices.scope(), server.version())
        .into_iter()
        .map(|item| (item.name, item.version))
        .collect();
    let have: BTreeMap<_, _> = slices
        .known
        .iter()
        .map(|(name, known)| (name.clone(), known.version))
        .collect();
    prop_assert_eq!(have, want);
    Ok(())
}

proptest! {
    /// For any order of writes, events and switches: no slice goes back to an older version, none that stays is missing
    /// for a moment, and in the end the driver knows what the API server has.
    #[test]
    fn a_change_of_scope_loses_and_reverts_nothing(steps in proptest::collection::vec(any_step(), 0..60)) {
        run(steps)?;
    }
}
