//! Network namespaces: the only setns(2) of this program.
//!
//! Writes: nothing itself. setns changes the calling thread only, and a thread that fails to switch back would poison whichever
//! pool it came from: work runs on plain threads of this module, and one that does not come home takes no more.

pub(crate) mod addresses;
pub mod apply;
pub(crate) mod conntrack;
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

/// Where a process finds the namespace it runs in, the node's.
pub(crate) const OWN: &str = "/proc/self/ns/net";

/// Where a thread does.
const THIS: &str = "/proc/thread-self/ns/net";

/// Which network namespace it is, as long as somebody keeps it alive: afterwards another may have the same.
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

    /// The one that the calling thread works in.
    pub(crate) fn of_this_thread() -> Option<Self> {
        HERE.get().or_else(|| Self::at(THIS).ok())
    }

    /// The one of this process, which never leaves it.
    fn of_home() -> io::Result<Self> {
        static HOME: OnceLock<Identity> = OnceLock::new();
        if let Some(home) = HOME.get() {
            return Ok(*home);
        }
        Self::at(OWN).map(|home| *HOME.get_or_init(|| home))
    }
}

thread_local! {
    /// Where [`Netns::enter`] brought this thread, so that the kernel need not be asked.
    static HERE: Cell<Option<Identity>> = const { Cell::new(None) };
}

/// An open network namespace. It stays alive while this is held.
#[derive(Debug)]
pub struct Netns(File);

/// Why a network namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod is gone, or the directory is not mounted with `HostToContainer` propagation.
    #[error("network namespace {path:?} is gone")]
    Gone {
        /// Its path.
        path: PathBuf,
    },
    /// It is there and cannot be opened.
    #[error("failed to open network namespace {path:?}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path leads to the node's namespace, where nothing may be written.
    #[error("{path:?} is the network namespace of the node, not of a pod")]
    Host {
        /// The path.
        path: PathBuf,
    },
    /// No thread, or setns rejected: not a network namespace, or CAP_SYS_ADMIN is missing.
    #[error("failed to enter the network namespace")]
    Enter(#[source] io::Error),
}

impl Netns {
    /// Opens the namespace at `path` and makes sure that it is not our own.
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
        // Compared on the open file, not on the path, which may come to mean another namespace at any time.
        let opened = file.metadata().map_err(failed)?;
        if Identity::of(&opened) == Identity::of_home().map_err(failed)? {
            return Err(Error::Host {
                path: path.to_owned(),
            });
        }
        Ok(Self(file))
    }

    /// The namespace of this process, which is the node's: for its own clients, on purpose, and nothing else.
    pub fn home() -> Result<Self, Error> {
        let failed = |source| Error::Open {
            path: PathBuf::from(OWN),
            source,
        };
        File::open(OWN).map(Self).map_err(failed)
    }

    /// Which one it is.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.0.metadata().ok().map(|found| Identity::of(&found))
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
            // Nobody waits any more when the process stops; the work is done all the same.
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

    /// Runs `work` in a new namespace that ends with it.
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
            reason = "the one sanctioned caller, on a thread of its own"
        )]
        nix::sched::setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter(errno.into()))?;
        HERE.set(self.identity());
        Ok(())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the calling thread works in the namespace of this process.
pub fn is_home() -> bool {
    Identity::of_this_thread() == Identity::of_home().ok()
}

/// Brings the calling thread back; says whether it is there.
fn go_home() -> bool {
    static HOME: OnceLock<Option<Netns>> = OnceLock::new();
    let home = HOME.get_or_init(|| Netns::home().ok());
    home.as_ref().is_some_and(|home| home.enter().is_ok())
}

/// Starts a thread that outlives the work of the caller, in the namespace of this process. A thread begins in the namespace of the one
/// that starts it, and would keep a pod's alive.
pub(crate) fn spawn_at_home(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let home = Netns(File::open(OWN)?);
    let job = move || {
        if home.enter().is_ok() {
            drop(home);
            work();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(job)?;
    Ok(())
}

/// Starts a thread that goes from one namespace to the next and does `work` in each. What cannot be entered is left out: it is gone, or will be
/// soon. It begins at home and ends in the last one.
pub(crate) fn spawn_tour<T>(
    mut next: impl FnMut() -> Option<(PathBuf, T)> + Send + 'static,
    mut work: impl FnMut(T) + Send + 'static,
) -> io::Result<()> {
    let tour = move || {
        while let Some((path, with)) = next() {
            // Closed before the work: the thread keeps the namespace alive.
            if File::open(path).is_ok_and(|file| Netns(file).enter().is_ok()) {
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
    fn a_namespace_that_is_gone_is_told_from_one_that_cannot_be_opened() {
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
    async fn a_thread_is_at_home_before_it_does_more_and_one_that_panics_does_no_more() {
        let spawn = |work: fn() -> bool| Netns::home().unwrap().spawn(work).unwrap();
        for _ in 0..100 {
            assert!(spawn(is_home).await.unwrap().unwrap());
        }
        let panicking = spawn(|| std::panic::resume_unwind(Box::new("work that panics")));
        assert!(panicking.await.is_err(), "the caller gets an error");
        assert!(spawn(is_home).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn work_that_hangs_holds_up_no_other() {
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
