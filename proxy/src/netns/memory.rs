//! Memory budgets for listings of the kernel and of the iptables programs: one per attempt, and one for all attempts together.
//!
//! The owner of a pod decides how long the lists of its network namespace are, and how long a call there takes. So an attempt gets a
//! [`Share`] before it starts: its size follows from the wanted rules, not from the listing. The thread that does the work keeps the
//! share until it ends, also after the wait for the thread has timed out. A listing that does not fit is not read.

use crate::backend::PerItem;
use rules::PodRules;
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Memory, in bytes, of all attempts together that read or write all rules. An attempt that needs more for its wanted rules runs alone.
pub const FILLING: usize = 128 << 20;

/// Memory of all attempts together that change known rules.
pub const CHANGING: usize = 64 << 20;

/// Minimum for an attempt that reads or writes all rules: a table may contain rules of deleted Services.
const FLOOR: usize = 12 << 20;

/// Minimum for any attempt, for links and addresses.
const LEAST: usize = 3 << 20;

/// Memory for one nftables set with its rules when the read state is compared with the written one.
pub(crate) const PER_SET: usize = 16 << 10;

/// Memory for one number of endpoints, or one affinity: two sets, and as many that are no longer used.
const PER_CLASS: usize = 4 * PER_SET;

/// Memory for a route to a VIP.
const PER_ROUTE: usize = 512;

/// Bytes of memory per byte of a parsed message: measured are 4 to 6.
pub(crate) const WEIGHT: usize = 6;

/// Budget outside of attempts: cleanup, probes.
const UNSHARED: usize = 64 << 20;

/// Unit of the semaphores, which count in 32 bits.
const UNIT: usize = 1 << 10;

/// Memory of a program in addition to its listing.
const PROGRAM: usize = 24 << 20;

/// Longest wait for memory of other attempts.
const PATIENCE: Duration = Duration::from_secs(30);

/// Other attempts use the whole budget and do not end.
#[derive(Debug, thiserror::Error)]
#[error(
    "no memory within {} s: attempts on other pods use the shared budget of {} MiB",
    PATIENCE.as_secs(),
    .0 >> 20
)]
pub struct NoMemory(usize);

/// Error of a listing that exceeds its budget.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TooLong(String);

/// Returns the error of a listing that exceeds its budget.
pub(crate) fn too_long(why: impl Into<String>) -> io::Error {
    io::Error::other(TooLong(why.into()))
}

/// Returns true when a listing exceeded its budget.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(source) if source.is::<TooLong>())
}

/// Budgets of all attempts.
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

/// Memory of one attempt, released on drop.
#[derive(Debug)]
pub(crate) struct Share {
    limit: usize,
    /// Size after [`Self::grow`].
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
    /// Acquires the share of an attempt with the rules `wanted`: one that makes a small change, or one that reads and writes everything.
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

    /// Waits for memory; an attempt that needs more than the budget gets all of it.
    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, NoMemory> {
        let units = u32::try_from(bytes.min(self.size) / UNIT).unwrap_or(u32::MAX);
        let permit = timeout(PATIENCE, Arc::clone(&self.units).acquire_many_owned(units)).await;
        let permit = permit.map_err(|_| NoMemory(self.size))?;
        Ok(permit.expect("the semaphore is never closed"))
    }
}

impl Share {
    /// Assigns the share to the calling thread, which runs nothing else.
    pub(crate) fn spend(&self) {
        LEFT.set(self.limit);
        FOR_A_PROGRAM.set(Some(PROGRAM + self.whole));
    }

    /// Grows the share of a small change that needs to read everything. Blocks: not for threads of the async runtime.
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

/// Resets the share of this thread before its next job.
pub(crate) fn begin() {
    LEFT.set(UNSHARED);
    FOR_A_PROGRAM.set(None);
}

thread_local! {
    /// Remaining budget of the job of this thread.
    static LEFT: Cell<usize> = const { Cell::new(UNSHARED) };
}

thread_local! {
    static FOR_A_PROGRAM: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Returns the memory limit of a program that the calling thread starts: its memory counts for this container, and the owner of a pod
/// decides on the length of the table that it reads. `None`: no limit.
pub(crate) fn for_a_program() -> Option<u64> {
    FOR_A_PROGRAM.get().and_then(|bytes| bytes.try_into().ok())
}

/// Memory of a listing that the calling thread reads. A listing that is dropped, because it has to be read again, releases its memory.
#[derive(Debug, Default)]
pub(crate) struct Taken(usize);

impl Taken {
    /// Charges more bytes.
    pub(crate) fn add(&mut self, bytes: usize) -> io::Result<()> {
        let Some(left) = LEFT.get().checked_sub(bytes) else {
            return Err(too_long(
                "the listing is longer than the wanted rules explain: it takes more memory than the attempt may use",
            ));
        };
        LEFT.set(left);
        self.0 += bytes;
        Ok(())
    }

    /// Releases the memory of the listing.
    pub(crate) fn give_back(self) {
        LEFT.set(LEFT.get() + self.0);
    }
}

/// Runs a read that replaces an earlier one: it may use the remaining budget, and releases it.
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
    async fn an_abandoned_thread_keeps_its_share_until_it_ends() {
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
    fn memory_is_charged_across_lists_and_released_on_drop() {
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
