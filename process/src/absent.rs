//! A kind that can be done without: an API server may not have it, or a role of an earlier release may not allow it.

use kube::runtime::watcher;

/// Whether a watch cannot begin because the kind is not there (404) or not allowed (403).
pub fn is_absent(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    // By the code: of a group that is not there the API server answers in plain text, without a reason.
    matches!(status.code, 403 | 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kind_that_is_not_there_or_not_allowed_is_done_without() {
        let said = |code| {
            let status = kube::core::Status::failure("no", "no").with_code(code);
            is_absent(&watcher::Error::InitialListFailed(kube::Error::Api(
                status.boxed(),
            )))
        };
        assert_eq!([403, 404, 500, 429].map(said), [true, true, false, false]);
    }
}
