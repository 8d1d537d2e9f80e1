//! A fault source for tests: a write to the kernel fails as it does when memory is short or a device goes at that very moment.
//!
//! No test can make the real kernel return ENOMEM or ENODEV to one chosen write. All else of such a test is real: the kernel, the rules,
//! the writes that do not fail. Per thread, and inactive unless a test sets it; then a write costs one look at a thread-local.

use std::cell::RefCell;
use std::io;

/// Which errno a write fails with; `None`: it is made. It is called with the write's bytes: netlink messages, or the input of a program.
type Hook = Box<dyn FnMut(&[u8]) -> Option<i32>>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Has each write of this thread to the kernel ask `hook` first, while `work` is done.
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
