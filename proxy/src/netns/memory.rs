//! Memory for what the kernel, and the programs of iptables, list: a budget for each attempt, and one for all of them together.
//!
//! The owner of a pod decides how long the lists of its network namespace are, and how long a call there takes. So an attempt gets a
//! [`Share`] before it starts: its size follows from what is wanted there, whatever is found. The thread that does the work keeps the
//! share until it ends, also after the wait for the thread has timed out. What does not fit is not read.

use crate::backend::PerItem;
use rules::PodRules;
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Most memory, in bytes, of all attempts together that read or fill namespaces. An attempt that needs more, for more is wanted, runs
/// alone.
pub const FILLING: usize = 128 << 20;

/// The same of attempts that change what is known to be there.
pub const CHANGING: usize = 64 << 20;

/// What an attempt that reads or fills may use whatever is wanted: a table may be from before its Services were deleted.
const FLOOR: usize = 12 << 20;

/// What any attempt may use: for links and addresses.
const LEAST: usize = 3 << 20;

/// What a set of nftables of ours costs with its rules, when what is read is compared with what was written.
pub(crate) const PER_SET: usize = 16 << 10;

/// What one number of endpoints, or one affinity, may cost: two sets, and as many of others that are not used any more.
const PER_CLASS: usize = 4 * PER_SET;

/// A route to each VIP.
const PER_ROUTE: usize = 512;

/// How many bytes of memory a byte of a kept message becomes once it is read: measured are 4 to 6.
pub(crate) const WEIGHT: usize = 6;

/// Outside of attempts: clean-up, probes.
const UNSHARED: usize = 64 << 20;

/// The semaphores count in units of this, as they have 32 bits.
const UNIT: usize = 1 << 10;

/// What a program needs beside what it reads.
const PROGRAM: usize = 24 << 20;

/// How long to wait for others to give back theirs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts of other pods have it all, and do not end.
#[derive(Debug, thiserror::Error)]
#[error(
    "no memory within {} s: attempts on other pods use the {} MiB that all may use together",
    PATIENCE.as_secs(),
    .0 >> 20
)]
pub struct NoMemory(usize);

/// Why a list was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TooLong(String);

/// A list that is not read to its end.
pub(crate) fn too_long(why: impl Into<String>) -> io::Error {
    io::Error::other(TooLong(why.into()))
}

/// Whether a list was not read to its end because it is too long.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(source) if source.is::<TooLong>())
}

/// What all attempts have.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    filling: Pool,
    changing: Pool,
}

#[derive(Clone, Debug)]
struct Pool {
    units: Arc<Semaphore>,
    size: usize,
}

/// Memory of one attempt, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    limit: usize,
    /// What [`Self::grow`] makes of it.
    whole: usize,
    units: Vec<OwnedSemaphorePermit>,
    filling: Pool,
    runtime: Handle,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            filling: Pool::new(FILLING),
            changing: Pool::new(CHANGING),
        }
    }
}

impl Memory {
    /// For an attempt that makes a small change, or else one that reads and writes everything, where `wanted` shall be.
    ///
    /// `per_item`: see [`Backend::memory_per_item`](crate::backend::Backend::memory_per_item).
    pub(crate) async fn share(
        &self,
        is_small: bool,
        wanted: &PodRules,
        per_item: PerItem,
    ) -> Result<Share, NoMemory> {
        let items = wanted.item_count();
        let whole = FLOOR + per_item.whole * items + PER_CLASS * wanted.class_count();
        let (pool, limit) = if is_small {
            (
                &self.changing,
                LEAST + PER_ROUTE * wanted.vip_count() + per_item.change * items,
            )
        } else {
            (&self.filling, whole)
        };
        Ok(Share {
            limit,
            whole: whole.max(limit),
            units: vec![pool.take(limit).await?],
            filling: self.filling.clone(),
            runtime: Handle::current(),
        })
    }
}

impl Pool {
    fn new(size: usize) -> Self {
        Self {
            units: Arc::new(Semaphore::new(size / UNIT)),
            size,
        }
    }

    /// Waits for its turn; an attempt that needs more than there is gets all of it.
    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, NoMemory> {
        let units = u32::try_from(bytes.min(self.size) / UNIT).unwrap_or(u32::MAX);
        let permit = timeout(PATIENCE, Arc::clone(&self.units).acquire_many_owned(units)).await;
        let permit = permit.map_err(|_| NoMemory(self.size))?;
        Ok(permit.expect("the semaphore is never closed"))
    }
}

impl Share {
    /// Lets the calling thread, which does nothing else, use it.
    pub(crate) fn spend(&self) {
        LEFT.set(self.limit);
        FOR_A_PROGRAM.set(Some(PROGRAM + self.whole));
    }

    /// A small change turned out to need everything read. Not to be called on a thread of the runtime: it blocks.
    pub(crate) fn grow(&mut self) -> Result<(), NoMemory> {
        let more = self.whole - self.limit;
        if more > 0 {
            self.units
                .push(self.runtime.block_on(self.filling.take(self.whole))?);
            self.limit = self.whole;
            LEFT.set(LEFT.get() + more);
        }
        Ok(())
    }
}

/// Another piece of work begins on this thread, which has no share yet.
pub(crate) fn begin() {
    LEFT.set(UNSHARED);
    FOR_A_PROGRAM.set(None);
}

thread_local! {
    /// What the work of this thread may still take.
    static LEFT: Cell<usize> = const { Cell::new(UNSHARED) };
}

thread_local! {
    static FOR_A_PROGRAM: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a program may use that the calling thread starts: its memory is this container's, and the table that it reads is as long as its
/// owner likes. `None`: it is not limited.
pub(crate) fn for_a_program() -> Option<u64> {
    FOR_A_PROGRAM.get().and_then(|bytes| bytes.try_into().ok())
}

/// Memory of a list that is being read, by the work of the calling thread. A list that is dropped because it has to be read again gives
/// its own back.
#[derive(Debug, Default)]
pub(crate) struct Taken(usize);

impl Taken {
    /// Takes so much more.
    pub(crate) fn add(&mut self, bytes: usize) -> io::Result<()> {
        let Some(left) = LEFT.get().checked_sub(bytes) else {
            return Err(too_long(
                "there is more than what is wanted explains: it takes more memory than the attempt may use",
            ));
        };
        LEFT.set(left);
        self.0 += bytes;
        Ok(())
    }

    /// The list is not kept.
    pub(crate) fn give_back(self) {
        LEFT.set(LEFT.get() + self.0);
    }
}

/// Reads something that replaces what was read before: it may use what is left now, and gives it back.
pub(crate) fn uncharged<T>(read: impl FnOnce() -> T) -> T {
    let left = LEFT.get();
    let result = read();
    LEFT.set(left);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::thread;

    /// On a thread that shares nothing with other tests.
    fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[tokio::test]
    async fn all_attempts_together_have_one_budget() {
        let (memory, nothing) = (Memory::default(), PodRules::default());
        let mut shares = Vec::new();
        for _ in 0..FILLING / FLOOR {
            shares.push(memory.share(false, &nothing, PerItem::default()).await.unwrap());
        }
        let none = PerItem::default();
        assert!(memory.share(false, &nothing, none).now_or_never().is_none());
        assert!(NoMemory(FILLING).to_string().contains("128 MiB"));
        memory.share(true, &nothing, PerItem::default()).await.unwrap();
        shares.pop();
        memory.share(false, &nothing, PerItem::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_was_given_up_holds_its_share_until_it_ends() {
        let (memory, nothing) = (Memory::default(), PodRules::default());
        let mut shares = Vec::new();
        for _ in 0..FILLING / FLOOR {
            shares.push(memory.share(false, &nothing, PerItem::default()).await.unwrap());
        }
        let last = shares.pop().unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            last.spend();
            ended.recv().unwrap();
            std::panic::resume_unwind(Box::new("a thread that panics gives it back, too"));
        });
        assert!(
            memory
                .share(false, &nothing, PerItem::default())
                .now_or_never()
                .is_none()
        );
        end.send(()).unwrap();
        thread.join().unwrap_err();
        memory.share(false, &nothing, PerItem::default()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_change_that_has_to_read_everything_gets_a_larger_share() {
        let memory = Memory::default();
        let mut share = memory
            .share(true, &PodRules::default(), PerItem::default())
            .await
            .unwrap();
        let grown = tokio::task::spawn_blocking(move || {
            share.spend();
            let before = LEFT.get();
            share.grow().unwrap();
            share.grow().unwrap();
            (before, LEFT.get())
        });
        assert_eq!(grown.await.unwrap(), (LEAST, FLOOR));
    }

    #[test]
    fn what_is_taken_counts_across_lists_and_what_is_dropped_comes_back() {
        alone(|| {
            let (mut first, mut second) = (Taken::default(), Taken::default());
            first.add(UNSHARED - 10).unwrap();
            let error = second.add(11).unwrap_err();
            assert!(
                is_too_long(&error) && error.to_string().contains("more memory"),
                "{error}"
            );
            assert!(!is_too_long(&io::Error::other("another")));
            first.give_back();
            second.add(11).unwrap();
            assert_eq!(LEFT.get(), UNSHARED - 11);
        });
    }
}
