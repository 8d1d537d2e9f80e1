//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};

/// Returns the name of the first of SIGTERM and SIGINT that arrives.
pub(crate) async fn termination() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
