//! The text of an error with its causes, for log lines and condition messages.
//!
//! Pure. An error of this workspace does not print its causes itself (`.ci/errors` checks this); some of libraries do.

use std::error::Error;

/// Formats `error` and its causes, each once: `failed to delete Service "a": not allowed`. Of an answer of the API server only the message is
/// printed.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in std::iter::successors(Some(error), |&error| error.source()) {
        let answer = api_message(error);
        let part = answer.map_or_else(|| error.to_string(), str::to_owned);
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        if answer.is_some() {
            break;
        }
    }
    text
}

/// The message of the API server; `kube::Error` prints the whole answer beside it.
fn api_message<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a str> {
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(|error| &**error);
    match error.downcast_ref::<kube::Error>().or(boxed)? {
        kube::Error::Api(status) if !status.message.is_empty() => Some(&status.message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("failed to add it")]
        Plain(#[source] io::Error),
        // As errors of libraries.
        #[error("failed to add it: {0}")]
        Printed(#[source] io::Error),
        #[error(transparent)]
        Outer(Box<Self>),
        #[error("failed to delete Service {name:?}")]
        Api { name: &'static str, source: kube::Error },
        #[error("failed to delete Service {name:?}")]
        BoxedApi {
            name: &'static str,
            source: Box<kube::Error>,
        },
    }

    #[test]
    fn every_cause_is_printed_once() {
        let down = || io::Error::new(io::ErrorKind::NetworkDown, "network is down");
        for error in [
            Nested::Plain(down()),
            Nested::Printed(down()),
            Nested::Outer(Box::new(Nested::Plain(down()))),
        ] {
            assert_eq!(error_chain(&error), "failed to add it: network is down");
        }
    }

    #[test]
    fn of_an_answer_of_the_api_server_the_message_is_printed() {
        let answer = || kube::Error::Api(Box::new(Status::failure("not allowed", "Forbidden")));
        let name = "web";
        for error in [
            Nested::Api {
                name,
                source: answer(),
            },
            Nested::BoxedApi {
                name,
                source: Box::new(answer()),
            },
        ] {
            assert_eq!(
                error_chain(&error),
                "failed to delete Service \"web\": not allowed"
            );
        }
        assert_eq!(error_chain(&answer()), "not allowed");
    }
}
