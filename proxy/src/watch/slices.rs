//! Handover from one watch of slices to the next while the scope changes.
//!
//! Pure. The running watch continues until the next one has listed. That list may be older than the events of the first watch since then,
//! and the next watch repeats what is newer than its list: the resourceVersion of an object decides, so that no event is lost, repeated or
//! reverted.

use super::scope::{Network, Scope};
use api::ObjectName;
use process::watch::Change;
use rules::Slice;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time for which a slice that left a narrow watch is kept: it is deleted, or has lost its label and is in the wide watch that follows.
pub(super) const HOLD: Duration = Duration::from_millis(200);

/// Longest time for which it is kept while the wide watch does not list.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// Slice of a watch event; of a deleted one only name and version count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: ObjectName,
    /// resourceVersion; 0: it cannot be compared.
    pub(super) version: u64,
    /// Network label.
    pub(super) network: Option<Network>,
    /// `None`: the slice is ignored.
    pub(super) slice: Option<Slice>,
}

/// Change of the slices in scope; a slice that leaves the scope counts as deleted.
pub(super) type ItemChange = Change<Item, Item>;

/// Change for the driver.
pub(super) type Output = Change<(ObjectName, Option<Slice>), ObjectName>;

#[derive(Clone, Debug)]
struct Known {
    version: u64,
    network: Option<Network>,
}

/// Slice as the driver knows it.
#[derive(Debug)]
pub(super) struct Slices {
    /// Scope of the watch that feeds the driver.
    scope: Scope,
    /// The driver has received the first list.
    is_begun: bool,
    known: BTreeMap<ObjectName, Known>,
    /// Number of slices without a label.
    unlabelled: usize,
    /// Newest resourceVersion, now and when the next watch began to list.
    newest: u64,
    newest_then: u64,
    /// The next watch is listing.
    is_switching: bool,
    /// resourceVersions of slices that left during that list.
    left: BTreeMap<ObjectName, u64>,
    /// Slices that left a narrow watch, with the time.
    held: BTreeMap<ObjectName, Instant>,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            scope: Scope::Nothing,
            is_begun: false,
            known: BTreeMap::new(),
            unlabelled: 0,
            newest: 0,
            newest_then: 0,
            is_switching: false,
            left: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }
}

impl Slices {
    /// Returns the scope.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns true when the driver has received the first list.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Returns true when a slice without a label is known.
    pub(super) fn has_unlabelled(&self) -> bool {
        self.unlabelled > 0
    }

    /// The next watch begins to list.
    pub(super) fn another_begins(&mut self) {
        self.is_switching = true;
        self.newest_then = self.newest;
    }

    /// The next watch is cancelled.
    pub(super) fn none_begins(&mut self) {
        self.is_switching = false;
    }

    /// Nothing is watched any more.
    pub(super) fn clear(&mut self) -> Vec<Output> {
        let has_changed = !self.is_begun || !self.known.is_empty();
        *self = Self {
            is_begun: true,
            ..Self::default()
        };
        has_changed
            .then(|| Output::Reset(Vec::new()))
            .into_iter()
            .collect()
    }

    /// Handles a change of the watch that feeds the driver; `version` is that of its last list.
    pub(super) fn take(&mut self, change: ItemChange, version: u64, now: Instant) -> Vec<Output> {
        match change {
            // A watch that lists again lists nothing older than its events, unless etcd was restored from a backup.
            Change::Reset(items) => self.listed(items, version, true),
            Change::Apply(item) => self.applied(item).into_iter().collect(),
            Change::Delete(item) => self.left(&item, now).into_iter().collect(),
        }
    }

    /// The next watch has listed and replaces the running one.
    pub(super) fn switch(&mut self, scope: Scope, items: Vec<Item>, version: u64) -> Vec<Output> {
        self.scope = scope;
        // The list was requested at that version: an older one is of a restored etcd.
        let is_restored = version < self.newest_then;
        let outputs = self.listed(items, version, is_restored);
        self.is_switching = false;
        // The next watch repeats those events.
        self.left.retain(|_, left| *left > version);
        outputs
    }

    /// `is_all`: the list is current; otherwise it may be older than events since.
    fn listed(&mut self, items: Vec<Item>, version: u64, is_all: bool) -> Vec<Output> {
        if is_all {
            self.left.clear();
            self.newest = version;
        }
        let mut before = std::mem::take(&mut self.known);
        self.unlabelled = 0;
        let mut outputs = Vec::new();
        for item in items {
            let had = before.remove(&item.name);
            let seen = had.as_ref().map_or(0, |known| known.version);
            // Deleted since, or without its label; then this watch will report it.
            let has_left = self.left.get(&item.name).is_some_and(|left| *left > item.version);
            if !has_left {
                self.held.remove(&item.name);
            }
            let is_known = seen == item.version || !is_all && seen > item.version;
            if item.version == 0 || !(has_left || is_known) {
                outputs.push(self.keep(item));
            } else if let Some(known) = had {
                // An event since then may have moved it out of the new scope.
                if self.scope.has(known.network) {
                    self.insert(item.name, known);
                } else {
                    outputs.push(self.drop(item.name, version));
                }
            }
        }
        for (name, known) in before {
            let is_newer = !is_all && version > 0 && known.version > version;
            if is_newer && self.scope.has(known.network) {
                self.insert(name, known);
            } else {
                outputs.push(self.drop(name, version));
            }
        }
        if std::mem::replace(&mut self.is_begun, true) {
            return outputs;
        }
        let all = outputs.into_iter().filter_map(|output| match output {
            Output::Apply(slice) => Some(slice),
            Output::Delete(_) | Output::Reset(_) => None,
        });
        vec![Output::Reset(all.collect())]
    }

    /// Handles a slice that is missing in a list of this version.
    fn drop(&mut self, name: ObjectName, version: u64) -> Output {
        self.held.remove(&name);
        // It is deleted; in a narrow list it may also have lost its label.
        if self.is_switching && self.scope == Scope::Everything {
            self.left.insert(name.clone(), version);
        }
        Output::Delete(name)
    }

    fn applied(&mut self, item: Item) -> Option<Output> {
        let seen = self.known.get(&item.name).map_or(0, |known| known.version);
        let left = self.left.get(&item.name).copied().unwrap_or(0);
        // Events of the previous watch, and later ones.
        if item.version > 0 && (seen >= item.version || left > item.version) {
            return None;
        }
        self.held.remove(&item.name);
        Some(self.keep(item))
    }

    fn left(&mut self, item: &Item, now: Instant) -> Option<Output> {
        let known = self.known.get(&item.name)?;
        if item.version > 0 && known.version > item.version {
            return None;
        }
        if self.is_switching {
            self.left.insert(item.name.clone(), item.version);
        }
        self.newest = self.newest.max(item.version);
        if matches!(self.scope, Scope::Networks(_)) {
            self.held.entry(item.name.clone()).or_insert(now);
            return None;
        }
        self.remove(&item.name);
        Some(Output::Delete(item.name.clone()))
    }

    fn insert(&mut self, name: ObjectName, known: Known) {
        self.remove(&name);
        self.unlabelled += usize::from(known.network.is_none());
        self.known.insert(name, known);
    }

    fn remove(&mut self, name: &ObjectName) {
        let before = self.known.remove(name);
        self.unlabelled -= usize::from(before.is_some_and(|known| known.network.is_none()));
    }

    fn keep(&mut self, item: Item) -> Output {
        let Item {
            name,
            version,
            network,
            slice,
        } = item;
        self.newest = self.newest.max(version);
        self.insert(name.clone(), Known { version, network });
        Output::Apply((name, slice))
    }

    /// Returns slices that left and did not return. `is_widening`: a wide watch lists.
    pub(super) fn release(&mut self, is_widening: bool, now: Instant) -> Vec<Output> {
        let hold = if is_widening { LONGEST_HOLD } else { HOLD };
        let due = self.held.extract_if(.., |_, since| now >= *since + hold);
        let names: Vec<_> = due.map(|(name, _)| name).collect();
        for name in &names {
            self.remove(name);
        }
        names.into_iter().map(Output::Delete).collect()
    }

    /// Returns the time of the next [`Self::release`].
    pub(super) fn due(&self, is_widening: bool) -> Option<Instant> {
        let hold = if is_widening { LONGEST_HOLD } else { HOLD };
        self.held.values().min().map(|since| *since + hold)
    }
}

#[cfg(test)]
mod tests;
