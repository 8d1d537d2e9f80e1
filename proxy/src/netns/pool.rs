//! Threads that do one piece of work after the other, each in a namespace of its own choice, and are back at home before the next.
//!
//! To make and to end a thread costs as much as the work of a small change. A thread that cannot go home ends with its work, one that has
//! none for a moment ends too: an idle process has none of them, and none keeps a pod's namespace alive.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a thread waits for more.
const LINGER: Duration = Duration::from_secs(1);

/// So many wait at most.
const KEPT: usize = 8;

/// A piece of work; says whether the thread is at home afterwards.
pub(super) type Job = Box<dyn FnOnce() -> bool + Send>;

#[derive(Default)]
struct Pool {
    /// Each has a thread that waits.
    jobs: VecDeque<Job>,
    waiting: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    jobs: VecDeque::new(),
    waiting: 0,
});
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a thread do it at once: one that waits, or a new one. Work that hangs holds up no other.
pub(super) fn run(job: Job) -> io::Result<()> {
    let mut pool = lock();
    if pool.waiting > pool.jobs.len() {
        pool.jobs.push_back(job);
        drop(pool);
        CHANGED.notify_one();
        return Ok(());
    }
    drop(pool);
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(|| work(job))?;
    Ok(())
}

fn work(first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        next = if job() { wait() } else { None };
    }
}

fn wait() -> Option<Job> {
    let mut pool = lock();
    if pool.waiting >= KEPT {
        return None;
    }
    pool.waiting += 1;
    let waited = CHANGED.wait_timeout_while(pool, LINGER, |pool| pool.jobs.is_empty());
    let (mut pool, _) = waited.unwrap_or_else(PoisonError::into_inner);
    pool.waiting -= 1;
    pool.jobs.pop_front()
}
