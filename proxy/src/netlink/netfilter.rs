//! Netfilter sockets of namespaces: opened once, kept open for a moment, closed by a thread that nothing waits for.
//!
//! Writes: nothing itself. When such a socket is closed, the kernel first frees the objects that the last transactions removed, which blocks
//! changes of rules in that namespace for 8 to 16 ms; a moment later nothing is left to free. A socket keeps its namespace alive: it is
//! closed at once when the pod is deleted, and soon in any case.

use crate::netlink::Netlink;
use crate::netns::{Identity, Netns, spawn_at_home};
use api::Family;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Time for which an unused socket is kept: longer than the kernel takes to free, and than the distance of changes in a burst.
const LINGER: Duration = Duration::from_secs(1);

/// Largest number of kept sockets, and of sockets that wait to be closed: more than a node has pods.
const LIMIT: usize = 512;

type Messages = Netlink<NetfilterMessage>;

/// Creates a message for `family`.
pub(crate) fn about(family: Family, inner: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// Socket in exclusive use.
pub(crate) struct Socket {
    /// `Some` until dropped.
    netlink: Option<Messages>,
    /// Namespace of the socket; if unknown, the socket is not kept.
    of: Option<Identity>,
}

impl Socket {
    /// Opens or reuses a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let of = Identity::of_this_thread();
        // The identity is unique, because the socket keeps the namespace alive.
        let kept = of.and_then(|of| Some(lock().kept.remove(&of)?.0));
        let netlink = match kept {
            Some(netlink) => netlink,
            None => Netlink::open(NETLINK_NETFILTER)?,
        };
        Ok(Self {
            netlink: Some(netlink),
            of,
        })
    }
}

impl Deref for Socket {
    type Target = Messages;

    fn deref(&self) -> &Messages {
        self.netlink.as_ref().expect("the socket is present until drop")
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Messages {
        self.netlink.as_mut().expect("the socket is present until drop")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(netlink) = self.netlink.take() else {
            return;
        };
        // Without the closing thread it is closed here: slower, but bounded.
        if is_closing() {
            let surplus = lock().put(self.of, netlink);
            CHANGED.notify_one();
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
    kept: BTreeMap<Identity, (Messages, Instant)>,
    closing: Vec<Messages>,
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
    fn put(&mut self, of: Option<Identity>, netlink: Messages) -> Option<Messages> {
        let key =
            of.filter(|of| netlink.is_sound() && self.kept.len() < LIMIT && !self.kept.contains_key(of));
        if let Some(of) = key {
            self.kept.insert(of, (netlink, Instant::now()));
            return None;
        }
        if self.closing.len() >= LIMIT {
            return Some(netlink);
        }
        self.closing.push(netlink);
        None
    }

    fn release(&mut self, of: Identity) {
        self.closing
            .extend(self.kept.remove(&of).map(|(netlink, _)| netlink));
    }

    /// Returns the sockets to close now.
    fn take(&mut self, now: Instant) -> Vec<Messages> {
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

    /// A sound socket, and the namespace of this test.
    fn one() -> (Option<Identity>, Messages) {
        (
            Identity::of_this_thread(),
            Netlink::open(NETLINK_NETFILTER).unwrap(),
        )
    }

    #[test]
    fn one_socket_per_namespace_is_kept_for_a_while() {
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
    fn a_deleted_pod_closes_its_socket() {
        let mut unused = Unused::default();
        let (of, netlink) = one();
        unused.put(of, netlink);
        unused.release(of.unwrap());
        assert_eq!(unused.take(Instant::now()).len(), 1);
    }

    #[test]
    fn the_queue_of_sockets_to_close_is_bounded() {
        let mut unused = Unused::default();
        for n in 0..=LIMIT {
            assert_eq!(unused.put(None, one().1).is_some(), n == LIMIT);
        }
    }
}
