//! Sockets of namespaces: opened once, kept open for a moment, closed by a thread that nothing waits for.
//!
//! Writes: nothing itself. When a netfilter socket is closed, the kernel first frees the objects that the last transactions removed, which
//! blocks changes of rules in that namespace for 8 to 16 ms; a moment later nothing is left to free. A socket keeps its namespace alive: it
//! is closed at once when the pod is deleted, and soon in any case.

use crate::netlink::Netlink;
use crate::netns::{Identity, Netns, spawn_at_home};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Time for which an unused socket is kept: longer than the kernel takes to free, and than the distance of changes in a burst.
const LINGER: Duration = Duration::from_secs(1);

/// Largest number of kept sockets, and of sockets that wait to be closed: two for each pod of a node.
const LIMIT: usize = 1024;

/// Socket without its message type.
type Untyped = Netlink<()>;

/// Namespace and netlink protocol of a socket.
type Key = (Identity, isize);

/// Socket in exclusive use.
pub(crate) struct KeptSocket<M> {
    /// `Some` until dropped.
    netlink: Option<Netlink<M>>,
    /// Namespace of the socket; if unknown, the socket is not kept.
    of: Option<Identity>,
}

impl<M> KeptSocket<M> {
    /// Returns the kept socket of the calling thread's namespace, or one that its first request opens, at a given port if it is free; 0 lets
    /// the kernel choose.
    pub(crate) fn new(protocol: isize, port: u32) -> Self {
        let of = Identity::of_this_thread();
        // The identity is unique, because the socket keeps the namespace alive.
        let kept = of.and_then(|of| Some(lock().kept.remove(&(of, protocol))?.0));
        let netlink = kept.map_or_else(|| Netlink::lazy(protocol, port), Netlink::cast);
        Self {
            netlink: Some(netlink),
            of,
        }
    }
}

impl<M> Deref for KeptSocket<M> {
    type Target = Netlink<M>;

    fn deref(&self) -> &Netlink<M> {
        self.netlink.as_ref().expect("the socket is present until drop")
    }
}

impl<M> DerefMut for KeptSocket<M> {
    fn deref_mut(&mut self) -> &mut Netlink<M> {
        self.netlink.as_mut().expect("the socket is present until drop")
    }
}

impl<M> Drop for KeptSocket<M> {
    fn drop(&mut self) {
        let netlink = self.netlink.take().filter(Netlink::is_open);
        // Without the closing thread it is closed here: slower, but bounded.
        if let Some(netlink) = netlink
            && is_closing()
        {
            let mut unused = lock();
            let surplus = unused.put(self.of, netlink.cast());
            let is_due = unused.wakes();
            drop(unused);
            if is_due {
                CHANGED.notify_one();
            }
            drop(surplus);
        }
    }
}

/// Lease of a pod for sockets of its namespace: without it they are closed at once.
#[derive(Debug)]
pub(crate) struct SocketLease(Identity);

impl SocketLease {
    /// Acquires the lease of `netns`; returns true when `lease` was for the same namespace, which an open socket keeps alive.
    pub(crate) fn acquire(lease: &mut Option<Self>, netns: &Netns) -> bool {
        let now = netns.identity();
        let is_known = now.is_some() && lease.as_ref().map(|lease| lease.0) == now;
        if !is_known {
            *lease = now.map(Self);
        }
        is_known
    }
}

impl Drop for SocketLease {
    fn drop(&mut self) {
        lock().release(self.0);
        CHANGED.notify_one();
    }
}

/// Unused sockets.
#[derive(Default)]
struct Unused {
    kept: BTreeMap<Key, (Untyped, Instant)>,
    closing: Vec<Untyped>,
}

static UNUSED: Mutex<Unused> = Mutex::new(Unused {
    kept: BTreeMap::new(),
    closing: Vec::new(),
});
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Unused> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unused {
    /// Returns a socket that the caller has to close.
    fn put(&mut self, of: Option<Identity>, netlink: Untyped) -> Option<Untyped> {
        let key = of.map(|of| (of, netlink.protocol()));
        let key =
            key.filter(|key| netlink.is_sound() && self.kept.len() < LIMIT && !self.kept.contains_key(key));
        if let Some(key) = key {
            self.kept.insert(key, (netlink, Instant::now()));
            return None;
        }
        if self.closing.len() >= LIMIT {
            return Some(netlink);
        }
        self.closing.push(netlink);
        None
    }

    /// Returns true when the closing thread has to be woken: it has a socket to close now, or the first one to close later. It finds the others
    /// by itself.
    fn wakes(&self) -> bool {
        !self.closing.is_empty() || self.kept.len() == 1
    }

    fn release(&mut self, of: Identity) {
        let kept = self
            .kept
            .extract_if((of, isize::MIN)..=(of, isize::MAX), |_, _| true);
        self.closing.extend(kept.map(|(_, (netlink, _))| netlink));
    }

    /// Returns the sockets to close now.
    fn take(&mut self, now: Instant) -> Vec<Untyped> {
        let idle = self
            .kept
            .extract_if(.., |_, (_, since)| now.duration_since(*since) >= LINGER);
        self.closing.extend(idle.map(|(_, (netlink, _))| netlink));
        std::mem::take(&mut self.closing)
    }
}

/// Starts the closing thread on the first call; returns true when it runs.
fn is_closing() -> bool {
    static STARTED: OnceLock<bool> = OnceLock::new();
    *STARTED.get_or_init(|| spawn_at_home("netlink-close", close).is_ok())
}

fn close() {
    loop {
        let mut unused = lock();
        let done = unused.take(Instant::now());
        if done.is_empty() {
            if unused.kept.is_empty() {
                drop(CHANGED.wait(unused));
            } else {
                drop(CHANGED.wait_timeout(unused, LINGER / 4));
            }
            continue;
        }
        drop(unused);
        drop(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_netfilter::NetfilterMessage;
    use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

    /// A sound socket, and the namespace of this test.
    fn one_of(protocol: isize) -> (Option<Identity>, Untyped) {
        let socket = Netlink::<NetfilterMessage>::open(protocol);
        (Identity::of_this_thread(), socket.unwrap().cast())
    }

    fn one() -> (Option<Identity>, Untyped) {
        one_of(NETLINK_NETFILTER)
    }

    #[test]
    fn one_socket_per_namespace_and_protocol_is_kept_for_a_while() {
        let (mut unused, now) = (Unused::default(), Instant::now());
        for _ in 0..2 {
            let (of, netlink) = one();
            assert!(unused.put(of, netlink).is_none());
        }
        assert_eq!((unused.take(now).len(), unused.kept.len()), (1, 1));
        assert_eq!(unused.take(Instant::now() + LINGER).len(), 1);
        assert!(unused.kept.is_empty());
    }

    #[test]
    fn a_deleted_pod_closes_its_sockets() {
        let mut unused = Unused::default();
        for protocol in [NETLINK_NETFILTER, NETLINK_ROUTE] {
            let (of, netlink) = one_of(protocol);
            unused.put(of, netlink);
        }
        assert_eq!(unused.kept.len(), 2);
        unused.release(Identity::of_this_thread().unwrap());
        assert_eq!(unused.take(Instant::now()).len(), 2);
    }

    #[test]
    fn the_queue_of_sockets_to_close_is_bounded() {
        let mut unused = Unused::default();
        for n in 0..=LIMIT {
            assert_eq!(unused.put(None, one().1).is_some(), n == LIMIT);
        }
    }
}
