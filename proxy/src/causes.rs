//! An error with everything that led to it, for where people look: Events, conditions, `/state`.
//!
//! Pure.

use std::error::Error;

/// The error and its sources, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Error as Backend;
    use std::io;

    #[test]
    fn each_cause_is_named_once() {
        let error = Backend::Kernel {
            action: "list sets".to_owned(),
            source: io::Error::from_raw_os_error(nix::libc::ENETDOWN),
        };
        assert_eq!(
            chain(&crate::apply::Error::Backend(error)),
            "the kernel refused to list sets: Network is down (os error 100)"
        );
        assert_eq!(chain(&io::Error::other("alone")), "alone");
    }
}
