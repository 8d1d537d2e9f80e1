//! Runs the programs of iptables: none waits long for the lock that a pod's owner may hold, and none fills our memory.
//!
//! Writes: whatever the caller has a program do.

use crate::backend::Error;
use crate::fault;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

/// The lock file of iptables-legacy. Each namespace is its own lock: pods do not wait for each other, or for kube-proxy on the
/// node, and no writable directory is needed.
pub const LOCK_FILE: (&str, &str) = ("XTABLES_LOCKFILE", "/proc/self/ns/net");

/// How long a program waits for the lock, in seconds; without a number it would wait for ever.
pub(super) const WAIT: [&str; 2] = ["-w", "5"];

/// Longest answer, in bytes: hundreds of thousands of rules.
const ANSWER_LIMIT: u64 = 32 << 20;

/// Longest complaint that is read.
const COMPLAINT_LIMIT: u64 = 4 << 10;

/// What a program exits with that did not get the lock, or memory.
const NO_RESOURCE: i32 = 4;

fn command(program: &'static str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env(LOCK_FILE.0, LOCK_FILE.1);
    command
}

/// Runs it and returns what it prints.
pub(super) fn ask(program: &'static str, arguments: &[&str]) -> Result<String, Error> {
    let output = run(program, arguments)?;
    if !output.status.success() {
        return Err(refused(program, &output.stderr));
    }
    Ok(String::from_utf8(output.stdout)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Whether what it is asked for is there. A program that could not look is not taken for one that found nothing.
pub(super) fn finds(program: &'static str, arguments: &[&str]) -> Result<bool, Error> {
    let output = run(program, arguments)?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(NO_RESOURCE) | None => Err(refused(program, &output.stderr)),
        Some(_) => Ok(false),
    }
}

/// Runs it with this input.
pub(super) fn feed(program: &'static str, arguments: &[&str], text: &str) -> Result<(), Error> {
    let failed = |source| Error::Run { program, source };
    fault::strike(text.as_bytes()).map_err(failed)?;
    let mut command = command(program, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let written = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        // It stops reading at the first error, so what it says matters more than the broken pipe.
        return Err(refused(program, &output.stderr));
    }
    written.map_err(failed)
}

fn run(program: &'static str, arguments: &[&str]) -> Result<Output, Error> {
    let failed = |source| Error::Run { program, source };
    let mut command = command(program, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let read = answer(&mut child);
    let status = child.wait().map_err(failed)?;
    let (stdout, stderr) = read.map_err(failed)?;
    if stdout.len() as u64 > ANSWER_LIMIT {
        let text = format!(
            "it lists more than {} MiB: too many rules to be read",
            ANSWER_LIMIT >> 20
        );
        return Err(refused(program, text.as_bytes()));
    }
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// What it prints, by one byte more than it may, and what it complains of. Both at once, for it waits until either is read.
fn answer(child: &mut Child) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    std::thread::scope(|scope| {
        let complaint = scope.spawn(move || -> std::io::Result<Vec<u8>> {
            let mut first = Vec::new();
            stderr.by_ref().take(COMPLAINT_LIMIT).read_to_end(&mut first)?;
            std::io::copy(&mut stderr, &mut std::io::sink())?;
            Ok(first)
        });
        let mut listed = Vec::new();
        let read = stdout.take(ANSWER_LIMIT + 1).read_to_end(&mut listed);
        if read.is_err() || listed.len() as u64 > ANSWER_LIMIT {
            // Else it would never end its complaint.
            child.kill()?;
        }
        let complaint = complaint.join().unwrap_or_else(|_| Ok(Vec::new()));
        read?;
        Ok((listed, complaint?))
    })
}

/// The program's own words, cut.
pub(super) fn refused(program: &'static str, complaint: &[u8]) -> Error {
    let text = String::from_utf8_lossy(complaint);
    Error::Refused {
        program,
        stderr: text.trim().chars().take(500).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_answer_is_an_error() {
        let error = ask("yes", &[]).unwrap_err().to_string();
        assert!(
            error.contains("yes refused: it lists more than 32 MiB"),
            "{error}"
        );
    }

    #[test]
    fn what_could_not_be_looked_for_is_not_taken_for_missing() {
        let found = |code: &str| finds("sh", &["-c", code]).map_err(|error| error.to_string());
        assert_eq!(
            (found("exit 0"), found("exit 1"), found("exit 2")),
            (Ok(true), Ok(false), Ok(false))
        );
        assert_eq!(
            found("echo locked >&2; exit 4"),
            Err("sh refused: locked".to_owned())
        );
    }
}
