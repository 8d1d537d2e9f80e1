//! SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Remembers SIGTERM and SIGINT from its making on, also while nobody waits.
///
/// Made before anything else: the first process of a container has no default action for signals (pid_namespaces(7)), so one
/// that came earlier would be lost, and the kubelet would wait for the whole grace period and kill.
pub(crate) struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns the name of the first that arrives or has arrived.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Termination;
    use nix::sys::signal::{Signal, raise};

    #[tokio::test]
    async fn what_came_before_anybody_waited_is_not_lost() {
        let mut termination = Termination::listen().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(termination.recv().await, "SIGTERM");
    }
}
