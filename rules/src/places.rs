//! `Places`: the endpoints of one port, each with a stable index.
//!
//! Pure. Backends number endpoints: an index in an nftables map, a rule of an iptables chain. The index does not affect flows, but to
//! change it costs a write in every pod. So an endpoint keeps its place as long as it exists: a new one takes the place of a removed one,
//! or the next free one; when there are fewer, the last ones fill the gaps (docs/adr/0004-stable-endpoint-places.md).

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A set of endpoints, in the places 0 to their number - 1.
///
/// Two are equal when the places are, too: backends write the difference. Compare [`to_set`](Self::to_set) where places do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    by_place: Vec<SocketAddr>,
    /// The places in the order of their endpoints. Empty: they are in that order already.
    sorted: Vec<u32>,
}

/// A place whose endpoint changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceChange {
    /// Index of the place.
    pub place: u32,
    /// Endpoint before.
    pub old: Option<SocketAddr>,
    /// Endpoint after. Never the same.
    pub new: Option<SocketAddr>,
}

impl Places {
    /// Builds it from the endpoints in the order of their places; `None` when an endpoint has two.
    pub fn of(by_place: Vec<SocketAddr>) -> Option<Self> {
        let is_sorted = by_place.windows(2).all(|pair| pair[0] < pair[1]);
        if is_sorted {
            let sorted = Vec::new();
            return Some(Self { by_place, sorted });
        }
        let count = u32::try_from(by_place.len()).ok()?;
        let mut sorted: Vec<u32> = (0..count).collect();
        sorted.sort_unstable_by_key(|place| by_place[*place as usize]);
        let is_twice = |pair: &[u32]| by_place[pair[0] as usize] == by_place[pair[1] as usize];
        let is_set = !sorted.windows(2).any(is_twice);
        is_set.then_some(Self { by_place, sorted })
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Iterates in the order of places.
    pub fn iter(&self) -> std::slice::Iter<'_, SocketAddr> {
        self.by_place.iter()
    }

    /// Whether `endpoint` has a place.
    pub fn contains(&self, endpoint: &SocketAddr) -> bool {
        if self.sorted.is_empty() {
            self.by_place.binary_search(endpoint).is_ok()
        } else {
            let by_endpoint = |place: &u32| self.by_place[*place as usize].cmp(endpoint);
            self.sorted.binary_search_by(by_endpoint).is_ok()
        }
    }

    /// Returns the endpoints without places.
    pub fn to_set(&self) -> BTreeSet<SocketAddr> {
        self.iter().copied().collect()
    }

    /// Whether they are in the order of their addresses, as in a first plan.
    pub fn is_sorted(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns the changed places from `old` to these.
    pub fn changes_from<'a>(&'a self, old: Option<&'a Self>) -> impl Iterator<Item = PlaceChange> + use<'a> {
        let old = old.map_or(&[][..], |old| &old.by_place);
        let count = self.len().max(old.len());
        let change = move |(place, at): (u32, usize)| {
            let (old, new) = (old.get(at).copied(), self.by_place.get(at).copied());
            (old != new).then_some(PlaceChange { place, old, new })
        };
        (0..).zip(0..count).filter_map(change)
    }

    /// Returns the endpoints that are not in `old`, unordered.
    pub fn not_in<'a>(&'a self, old: Option<&'a Self>) -> impl Iterator<Item = SocketAddr> + use<'a> {
        // An endpoint that keeps its place is in both.
        let moved_or_new = self.changes_from(old).filter_map(|change| change.new);
        moved_or_new.filter(move |endpoint| old.is_none_or(|old| !old.contains(endpoint)))
    }

    /// The endpoints of `wanted`, each in the place that it has here. New endpoints take the places of removed ones, in order.
    #[must_use]
    pub fn toward(&self, wanted: &Self) -> Self {
        let mut new: Vec<SocketAddr> = wanted.not_in(Some(self)).collect();
        new.sort_unstable();
        let mut new = new.into_iter();
        let stays = |endpoint: &SocketAddr| wanted.contains(endpoint);
        // Beyond the new end: the remaining endpoints move into the gaps.
        let kept = self.by_place.split_at(self.len().min(wanted.len()));
        let mut moving = kept.1.iter().copied().filter(stays);
        let mut by_place = Vec::with_capacity(wanted.len());
        for endpoint in kept.0 {
            let filled = Some(*endpoint).filter(stays);
            by_place.extend(filled.or_else(|| new.next()).or_else(|| moving.next()));
        }
        by_place.extend(new);
        Self::of(by_place).unwrap_or_else(|| wanted.clone())
    }

    /// The endpoints of `wanted` in places that cost few writes from here. `None`: the places that they have in `wanted` do.
    ///
    /// The plan of all pods follows from the plan before, so a pod that holds that one takes the new places as they are. A pod that holds
    /// other places keeps them: each place that changes is a write.
    pub fn closer_to(&self, wanted: &Self) -> Option<Self> {
        let changes = wanted.changes_from(Some(self)).count();
        if changes == 0 {
            return None;
        }
        let came = wanted.not_in(Some(self)).count();
        let gone = self.len() + came - wanted.len();
        (changes > 2 * (came + gone)).then(|| self.toward(wanted))
    }

    /// Keeps the endpoints for which `keep` holds. The last ones fill the gaps.
    pub fn retain(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        let kept: Self = self.iter().copied().filter(keep).collect();
        if kept.len() < self.len() {
            *self = self.toward(&kept);
        }
    }

    /// Removes all endpoints.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// In the order of their addresses.
impl FromIterator<SocketAddr> for Places {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(endpoints: I) -> Self {
        let mut by_place: Vec<_> = endpoints.into_iter().collect();
        by_place.sort_unstable();
        by_place.dedup();
        by_place.shrink_to_fit();
        let sorted = Vec::new();
        Self { by_place, sorted }
    }
}

impl<'a> IntoIterator for &'a Places {
    type Item = &'a SocketAddr;
    type IntoIter = std::slice::Iter<'a, SocketAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
