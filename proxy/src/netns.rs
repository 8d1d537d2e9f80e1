//! Network namespaces, and the work in them: rules, routes, conntrack. The only setns(2) of this program.
//!
//! Writes: nothing itself. setns changes the calling thread only, and a thread that fails to switch back would poison whichever
//! pool it came from: work runs on plain threads of this module, and a thread that cannot return ends.

pub(crate) mod addresses;
pub mod apply;
pub(crate) mod conntrack;
pub(crate) mod counters;
pub mod failure;
pub mod host_network;
pub(crate) mod legacy_proxy;
pub mod memory;
mod pool;
pub(crate) mod reachability;
pub(crate) mod routes;

use crate::netlink::generation;
use nix::sched::{CloneFlags, unshare};
use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use tokio::sync::oneshot;

/// Namespace of this process: that of the node.
pub(crate) const OWN: &str = "/proc/self/ns/net";

/// Namespace of the calling thread.
const THIS: &str = "/proc/thread-self/ns/net";

/// Identity of a network namespace while it is alive; afterwards another one may have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }

    fn at(path: &str) -> io::Result<Self> {
        std::fs::metadata(path).map(|found| Self::of(&found))
    }

    /// Returns the identity of the namespace of the calling thread.
    pub(crate) fn of_this_thread() -> Option<Self> {
        HERE.get().or_else(|| Self::at(THIS).ok())
    }

    /// Returns the identity of the namespace of this process, which never changes.
    fn of_home() -> io::Result<Self> {
        static HOME: OnceLock<Identity> = OnceLock::new();
        if let Some(home) = HOME.get() {
            return Ok(*home);
        }
        Self::at(OWN).map(|home| *HOME.get_or_init(|| home))
    }
}

thread_local! {
    /// Namespace that this thread entered with [`Netns::enter`]; saves a system call.
    static HERE: Cell<Option<Identity>> = const { Cell::new(None) };
}

/// Open network namespace. It stays alive until this is dropped.
#[derive(Debug)]
pub struct Netns {
    file: File,
    /// `None`: it could not be read.
    identity: Option<Identity>,
}

/// Error of entering a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod is deleted, or the directory is not mounted with `HostToContainer` propagation.
    #[error("network namespace {path:?} does not exist")]
    Gone {
        /// Path.
        path: PathBuf,
    },
    /// The namespace exists and cannot be opened.
    #[error("failed to open network namespace {path:?}")]
    Open {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The path is that of the node's namespace, in which no rules of a pod may be written.
    #[error("{path:?} is the network namespace of the node, not of a pod")]
    Host {
        /// Path.
        path: PathBuf,
    },
    /// No thread could be started, or setns failed: not a network namespace, or CAP_SYS_ADMIN is missing.
    #[error("failed to enter the network namespace")]
    Enter(#[source] io::Error),
}

impl Netns {
    /// Opens the namespace at `path` and verifies that it is not that of the node.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::Gone {
                path: path.to_owned(),
            },
            _ => Error::Open {
                path: path.to_owned(),
                source,
            },
        };
        let file = File::open(path).map_err(failed)?;
        // Compares the open file, not the path, which may refer to another namespace at any time.
        let opened = file.metadata().map_err(failed)?;
        let identity = Identity::of(&opened);
        if identity == Identity::of_home().map_err(failed)? {
            return Err(Error::Host {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            file,
            identity: Some(identity),
        })
    }

    /// Opens the namespace of this process, which is that of the node: only for clients on the node.
    pub fn home() -> Result<Self, Error> {
        let failed = |source| Error::Open {
            path: PathBuf::from(OWN),
            source,
        };
        File::open(OWN).map(Self::new).map_err(failed)
    }

    fn new(file: File) -> Self {
        let identity = file.metadata().ok().map(|found| Identity::of(&found));
        Self { file, identity }
    }

    /// Returns its identity.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Starts `work` on a thread of its own in this namespace; the receiver gets its result.
    pub fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, Error>>, Error> {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            memory::begin();
            generation::begin();
            let done = self.enter().map(|()| work());
            drop(self);
            let is_at_home = go_home();
            // The receiver is dropped at shutdown; the work is done nevertheless.
            let _ = sender.send(done);
            is_at_home
        };
        pool::run(Box::new(job)).map_err(Error::Enter)?;
        Ok(receiver)
    }

    /// Runs `work` on a fresh thread in this namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_fresh_thread(|| self.enter().map(|()| work()))
    }

    /// Runs `work` in a scratch namespace that is deleted afterwards.
    pub fn scratch<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter(errno.into()))?;
            Ok(work())
        })
    }

    fn enter(&self) -> Result<(), Error> {
        HERE.set(None);
        #[expect(
            clippy::disallowed_methods,
            reason = "the only permitted caller, on a thread of its own"
        )]
        nix::sched::setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter(errno.into()))?;
        HERE.set(self.identity());
        Ok(())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns true when the calling thread is in the namespace of this process.
pub fn is_home() -> bool {
    Identity::of_this_thread() == Identity::of_home().ok()
}

/// Returns the calling thread to the namespace of this process; returns true on success.
fn go_home() -> bool {
    static HOME: OnceLock<Option<Netns>> = OnceLock::new();
    let home = HOME.get_or_init(|| Netns::home().ok());
    home.as_ref().is_some_and(|home| home.enter().is_ok())
}

/// Starts a thread in the namespace of this process that may outlive the caller. A thread inherits the namespace of its creator, and would
/// keep that of a pod alive.
pub(crate) fn spawn_at_home(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let home = Netns::new(File::open(OWN)?);
    let job = move || {
        if home.enter().is_ok() {
            drop(home);
            work();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(job)?;
    Ok(())
}

/// Starts a thread that does `work` in one namespace after the other. A namespace that cannot be entered is skipped: it is deleted, or
/// about to be. The thread begins in the namespace of this process and ends in the last one.
pub(crate) fn spawn_tour<T>(
    mut next: impl FnMut() -> Option<(PathBuf, T)> + Send + 'static,
    mut work: impl FnMut(T) + Send + 'static,
) -> io::Result<()> {
    let tour = move || {
        while let Some((path, with)) = next() {
            // Closed before the work: the thread keeps the namespace alive.
            if File::open(path).is_ok_and(|file| Netns::new(file).enter().is_ok()) {
                work(with);
            }
        }
    };
    thread::Builder::new().name("netns-tour".to_owned()).spawn(tour)?;
    Ok(())
}

fn on_a_fresh_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let joined = scope.spawn(work).join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_rejected() {
        assert!(matches!(Netns::open(Path::new(OWN)), Err(Error::Host { .. })));
    }

    #[test]
    fn a_deleted_namespace_is_distinguished_from_an_unreadable_one() {
        assert!(matches!(
            Netns::open(Path::new("/run/netns/no-such")),
            Err(Error::Gone { .. })
        ));
        assert!(matches!(
            Netns::open(Path::new("/dev/null/x")),
            Err(Error::Open { .. })
        ));
    }

    #[tokio::test]
    async fn a_thread_returns_home_before_its_next_job_and_ends_after_a_panic() {
        let spawn = |work: fn() -> bool| Netns::home().unwrap().spawn(work).unwrap();
        for _ in 0..100 {
            assert!(spawn(is_home).await.unwrap().unwrap());
        }
        let panicking = spawn(|| std::panic::resume_unwind(Box::new("work that panics")));
        assert!(panicking.await.is_err(), "the caller gets an error");
        assert!(spawn(is_home).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_job_that_hangs_does_not_block_others() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hanging = Netns::home().unwrap().spawn(move || ended.recv().is_err());
        for _ in 0..20 {
            assert!(
                Netns::home()
                    .unwrap()
                    .spawn(is_home)
                    .unwrap()
                    .await
                    .unwrap()
                    .unwrap()
            );
        }
        drop(end);
        assert!(hanging.unwrap().await.unwrap().unwrap());
    }

    #[test]
    fn a_file_that_is_no_namespace_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let netns = Netns::open(file.path()).unwrap();
        assert!(matches!(netns.run(|| ()), Err(Error::Enter(_))));
    }
}
