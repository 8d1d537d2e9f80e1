//! The open connections of a server, and the choice of the one to close for a new one.
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Connections in the order in which they were accepted, with the address of the peer.
///
/// The victim is the oldest connection of the address that has the most. One address (a pod) that fills the server so only closes its
/// own connections, never the one of the kubelet. Where many addresses attack, or the kubelet shares the attacker's address, the oldest
/// goes: a new connection then lives until as many others as the server holds were accepted after it, and a probe takes less.
///
/// Whether a connection sent its request already does not count: an attacker could protect connections by a request whose response
/// is never read, and the youngest connection that is still to send one is the probe.
#[derive(Debug)]
pub(super) struct Connections<T> {
    open: Vec<(IpAddr, T)>,
    by_source: BTreeMap<IpAddr, usize>,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            by_source: BTreeMap::new(),
        }
    }
}

impl<T> Connections<T> {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn insert(&mut self, source: IpAddr, connection: T) {
        self.open.push((source, connection));
        *self.by_source.entry(source).or_default() += 1;
    }

    /// Removes the connection for which `is_it` holds, if there is one.
    pub(super) fn remove(&mut self, is_it: impl Fn(&T) -> bool) {
        if let Some(index) = self.open.iter().position(|(_, connection)| is_it(connection)) {
            self.remove_at(index);
        }
    }

    /// Removes the connection to close for a new one.
    pub(super) fn take_victim(&mut self) -> Option<T> {
        let most = self.by_source.values().copied().max()?;
        let has_most = |source| self.by_source.get(source) == Some(&most);
        let index = self.open.iter().position(|(source, _)| has_most(source))?;
        Some(self.remove_at(index))
    }

    fn remove_at(&mut self, index: usize) -> T {
        let (source, connection) = self.open.remove(index);
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[rstest]
    #[case::one_attacker(&[1, 2, 2, 2], Some(1))]
    #[case::a_later_attacker(&[1, 3, 2, 2], Some(2))]
    #[case::as_many_each(&[1, 2, 3], Some(0))]
    #[case::two_attackers(&[1, 2, 3, 3, 2], Some(1))]
    #[case::none(&[], None)]
    fn the_oldest_of_the_address_with_the_most_is_closed(
        #[case] sources: &[u8],
        #[case] victim: Option<usize>,
    ) {
        let mut connections = Connections::default();
        for (number, source) in sources.iter().enumerate() {
            connections.insert(address(*source), number);
        }
        assert_eq!(connections.take_victim(), victim);
    }

    #[test]
    fn a_connection_that_ended_is_not_counted() {
        let mut connections = Connections::default();
        for (source, number) in [(1, 0), (1, 1), (2, 2), (2, 3), (2, 4)] {
            connections.insert(address(source), number);
        }
        connections.remove(|number| *number == 2);
        connections.remove(|number| *number == 3);
        assert_eq!((connections.len(), connections.take_victim()), (3, Some(0)));
        while connections.take_victim().is_some() {}
        assert!(connections.by_source.is_empty());
    }
}
