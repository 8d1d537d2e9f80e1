//! Fault injection for tests: a write to the kernel fails as it does when memory is short or a device is removed at that moment.
//!
//! No test can make the real kernel return ENOMEM or ENODEV for one chosen write. Everything else in such a test is real: the kernel, the
//! rules, the other writes. Per thread, and inactive unless a test sets it; a write then costs one access to a thread-local.

use std::cell::RefCell;
use std::io;

/// Returns the errno of a write; `None`: the write is made. Called with the bytes of the write: netlink messages, or the input of a program.
type Hook = Box<dyn FnMut(&[u8]) -> Option<i32>>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Calls `hook` before each write of this thread to the kernel while `work` runs.
#[doc(hidden)]
pub fn with<T>(hook: impl FnMut(&[u8]) -> Option<i32> + 'static, work: impl FnOnce() -> T) -> T {
    HOOK.set(Some(Box::new(hook)));
    let done = work();
    HOOK.set(None);
    done
}

/// Called before each write.
pub(crate) fn strike(written: &[u8]) -> io::Result<()> {
    let errno = HOOK.with_borrow_mut(|hook| hook.as_mut().and_then(|hook| hook(written)));
    errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}
