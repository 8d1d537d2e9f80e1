//! A program as a child of the test process: it ends when its value is dropped, and with the test process.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// A running program.
pub(crate) struct Child {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) pid: u32,
}

impl Child {
    /// Starts a program; its output goes to `log`.
    pub(crate) fn start<'a>(
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        log: &Path,
    ) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(log)?)
            .stderr(File::options().append(true).open(log)?);
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        // The kernel kills the child with the *thread* that started it, so it gets a thread that lives as long as the child.
        let thread = std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(child.id()));
            while matches!(
                stopped.recv_timeout(Duration::from_millis(50)),
                Err(mpsc::RecvTimeoutError::Timeout)
            ) {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        let pid = start.recv()??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            pid,
        })
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid.to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "signal {signal} could not be sent");
        Ok(())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
