//! Signals that end a process: the test ends, and its cleanup does not.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals since the beginning of the test.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is closed.
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    /// From now on a signal does not end the process.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for a signal; one that arrived before is not lost.
    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
