//! Sockets to a namespace's netfilter: opened once, kept open for a moment, closed where nobody waits.
//!
//! Writes: nothing itself. When such a socket is closed the kernel first frees what the last transactions took away, 8 to 16 ms in which
//! nobody changes rules in that namespace; a moment later there is nothing left to free. A socket keeps its namespace alive: it is
//! closed at once when the pod is gone, and soon in any case.

use crate::netlink::Netlink;
use crate::netns::{Identity, Netns, spawn_at_home};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rules::Family;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a socket that nobody uses is kept: longer than the kernel takes to free, and than changes in a burst are apart.
const LINGER: Duration = Duration::from_secs(1);

/// So many are kept, and so many wait to be closed: more than a node has pods.
const LIMIT: usize = 512;

type Messages = Netlink<NetfilterMessage>;

/// A message about what is there of `family`.
pub(crate) fn about(family: Family, inner: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// A socket in use. Nobody else has it.
pub(crate) struct Socket {
    /// `Some` until dropped.
    netlink: Option<Messages>,
    /// Where it was opened; unknown: not kept.
    of: Option<Identity>,
}

impl Socket {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let of = Identity::of_this_thread();
        // An identity means this namespace and no other, for the socket keeps it alive.
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
        self.netlink.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Messages {
        self.netlink.as_mut().expect("it is there until the end")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(netlink) = self.netlink.take() else {
            return;
        };
        // Without the thread that closes it is closed here: slower, but bounded.
        if is_closing() {
            let surplus = lock().put(self.of, netlink);
            CHANGED.notify_one();
            drop(surplus);
        }
    }
}

/// A pod's lease to sockets of its namespace: without it they are closed at once.
#[derive(Debug)]
pub(crate) struct SocketLease(Identity);

impl SocketLease {
    /// Makes it `lease`; says whether it was already. While somebody holds it open it is the same namespace.
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
        lock().let_go(self.0);
        CHANGED.notify_one();
    }
}

/// Sockets that nobody uses.
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
    /// Returns what has to be closed by the caller.
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

    fn let_go(&mut self, of: Identity) {
        self.closing
            .extend(self.kept.remove(&of).map(|(netlink, _)| netlink));
    }

    /// What is to be closed now.
    fn take(&mut self, now: Instant) -> Vec<Messages> {
        let idle = self
            .kept
            .extract_if(.., |_, (_, since)| now.duration_since(*since) >= LINGER);
        self.closing.extend(idle.map(|(_, (netlink, _))| netlink));
        std::mem::take(&mut self.closing)
    }
}

/// Starts the thread that closes, the first time; says whether there is one.
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
    fn a_socket_is_kept_for_a_while_and_one_of_a_namespace() {
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
    fn a_pod_that_goes_takes_its_socket_along() {
        let mut unused = Unused::default();
        let (of, netlink) = one();
        unused.put(of, netlink);
        unused.let_go(of.unwrap());
        assert_eq!(unused.take(Instant::now()).len(), 1);
    }

    #[test]
    fn what_waits_to_be_closed_is_bounded() {
        let mut unused = Unused::default();
        for n in 0..=LIMIT {
            assert_eq!(unused.put(None, one().1).is_some(), n == LIMIT);
        }
    }
}
