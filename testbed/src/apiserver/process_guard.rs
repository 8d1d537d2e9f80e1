//! Ties processes and a temporary folder to the life of this process.
//!
//! Writes: the folder and processes. A killed test runs no destructor, so two things do not depend on one: the kernel
//! kills each process with the thread that started it (`PR_SET_PDEATHSIG`), and a shell that waits for the end of a
//! pipe from us removes the folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command;

const TICK: Duration = Duration::from_millis(50);

/// A process that ends with this value, and with this process.
pub struct Process {
    name: String,
    log: PathBuf,
    ended: Arc<Mutex<Option<ExitStatus>>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program`; its output goes to `log`.
    pub fn spawn(name: String, program: PathBuf, args: Vec<String>, log: PathBuf) -> Result<Self> {
        let ended = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let output = File::options().create(true).append(true).open(&log)?;
        let shared = Arc::clone(&ended);
        // The death signal is bound to the *thread* that forks, and runtime threads come and go with each test.
        let thread = std::thread::spawn(move || match launch(&program, &args, output) {
            Ok(child) => {
                let _ = started.send(Ok(()));
                tend(child, &stopped, &shared);
            }
            Err(error) => drop(started.send(Err(error))),
        });
        start.recv().context("the keeper thread ended")??;
        Ok(Self {
            name,
            log,
            ended,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The program's file name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// True once the process has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Returns the exit status with the end of the log.
    pub(crate) fn obituary(&self) -> String {
        let status = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let status = status.map_or_else(|| "is running".to_owned(), |status| format!("ended ({status})"));
        format!("{} {status}; {}", self.name, command::tail(&self.log, 15))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn launch(program: &Path, args: &[String], output: File) -> Result<Child> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot run setpriv (package util-linux)")
}

/// Lives as long as the process: until it ends, or until `stopped` is closed.
fn tend(mut child: Child, stopped: &mpsc::Receiver<()>, ended: &Mutex<Option<ExitStatus>>) {
    while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
        if let Ok(Some(status)) = child.try_wait() {
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            return;
        }
    }
    // The data is thrown away: nothing is gained by asking politely, and kube-apiserver would drain for a minute.
    let _ = child.kill();
    let _ = child.wait();
}

/// A temporary folder that goes with this value, and with this process.
pub(super) struct Folder {
    path: PathBuf,
    janitor: Child,
}

impl Folder {
    pub(super) fn create() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix("multus-service-apiserver-")
            .tempdir()?
            .keep();
        // The standard input closes with us; a dying etcd may still write, so removal is repeated.
        let script = r#"cat >/dev/null; for try in 1 2 3 4 5; do rm -rf -- "$0" && exit; sleep 0.5; done"#;
        let janitor = Command::new("setsid")
            .args(["sh", "-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run setsid (package util-linux)")?;
        Ok(Self { path, janitor })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
