//! Shutdown by SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM and SIGINT from its creation on, also while no task waits.
///
/// Create it first: the first process of a container has no default action for signals (pid_namespaces(7)), so an earlier signal
/// would be lost, and the kubelet would wait for the whole grace period and send SIGKILL.
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

    /// Receives the first signal since creation; returns its name.
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
    async fn a_signal_before_recv_is_not_lost() {
        let mut termination = Termination::listen().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(termination.recv().await, "SIGTERM");
    }
}
