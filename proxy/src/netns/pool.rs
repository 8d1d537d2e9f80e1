//! Pool of threads. A thread does one job after the other, each in a namespace of its own, and returns home before the next.
//!
//! Starting and ending a thread costs as much as a small change. A thread that cannot return home ends with its job, and an idle thread
//! ends after a moment: an idle process has none, and none keeps a pod's namespace alive.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Time for which an idle thread waits for a job.
const LINGER: Duration = Duration::from_secs(1);

/// Largest number of idle threads.
const KEPT: usize = 8;

/// Job; returns true when the thread has returned home.
pub(super) type Job = Box<dyn FnOnce() -> bool + Send>;

#[derive(Default)]
struct Pool {
    /// Channels of the idle threads.
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

/// Runs a job at once, on an idle thread or a new one. A job that hangs does not block others.
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
