//! Runs the iptables programs, with limits on the wait for the lock, which a pod's owner may hold, and on memory.
//!
//! Writes: the changes that the caller requests.

use crate::backend::Error;
use crate::fault_injection;
use crate::netns::is_home;
use crate::netns::memory::{self, Taken, is_too_long};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The lock file of iptables-legacy. Each namespace is its own lock: pods do not wait for each other, or for kube-proxy on the
/// node, and no writable directory is needed.
pub const LOCK_FILE: (&str, &str) = ("XTABLES_LOCKFILE", "/proc/self/ns/net");

/// Longest wait for the lock, in seconds; without a number a program would wait forever.
pub(super) const WAIT: [&str; 2] = ["-w", "5"];

/// Longest line that is parsed: our rules are shorter.
const LINE_LIMIT: u64 = 16 << 10;

/// Memory for the slot of a line, and the number of copies of its bytes: read, parsed, and rendered for comparison.
const LINE: usize = 64;
const COPIES: usize = 4;

/// Longest error output that is read.
const MAX_STDERR: u64 = 4 << 10;

/// Exit status of a program that did not get the lock, or memory.
const NO_RESOURCE: i32 = 4;

fn command(program: &'static str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env(LOCK_FILE.0, LOCK_FILE.1);
    command
}

/// Starts a program. In a pod its memory is limited to the budget of the attempt: above it, allocations fail.
fn start(mut command: Command) -> io::Result<Child> {
    let child = command.spawn()?;
    if let Some(limit) = memory::for_a_program().filter(|_| !is_home()) {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        // The program may have ended.
        let _ = prlimit(Some(Pid::from_child(&child)), Resource::Data, limit);
    }
    Ok(child)
}

/// Runs a program and returns the lines of its output that `keep` selects. They count against the attempt's [memory](crate::netns::memory).
pub(super) fn ask(
    program: &'static str,
    arguments: &[&str],
    mut keep: impl FnMut(&str) -> bool,
) -> Result<String, Error> {
    let (mut listed, mut taken) = (String::new(), Taken::default());
    let each = |line: &str| -> io::Result<()> {
        if keep(line) {
            taken.add(COPIES * (line.len() + LINE))?;
            listed.push_str(line);
            listed.push('\n');
        }
        Ok(())
    };
    let (status, complaint) = match run(program, arguments, each) {
        Err(source) if is_too_long(&source) => {
            taken.give_back();
            return Err(Error::Lists { program, source });
        }
        result => result.map_err(|source| Error::Run { program, source })?,
    };
    if !status.success() {
        return Err(rejected(program, &complaint));
    }
    Ok(listed)
}

/// Runs a check; returns true when the rule exists. A program that failed to check is an error, not a missing rule.
pub(super) fn finds(program: &'static str, arguments: &[&str]) -> Result<bool, Error> {
    let done = run(program, arguments, |_| Ok(()));
    let (status, complaint) = done.map_err(|source| Error::Run { program, source })?;
    match status.code() {
        Some(0) => Ok(true),
        Some(NO_RESOURCE) | None => Err(rejected(program, &complaint)),
        Some(_) => Ok(false),
    }
}

/// Runs a program with this input.
pub(super) fn feed(program: &'static str, arguments: &[&str], text: &str) -> Result<(), Error> {
    let failed = |source| Error::Run { program, source };
    fault_injection::strike(text.as_bytes()).map_err(failed)?;
    let mut command = command(program, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let mut child = start(command).map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let written = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        // The program stops reading at the first error, so its message matters more than the broken pipe.
        return Err(rejected(program, &output.stderr));
    }
    written.map_err(failed)
}

/// Passes on each line of its output; returns its exit status and its error output.
fn run(
    program: &'static str,
    arguments: &[&str],
    each: impl FnMut(&str) -> io::Result<()>,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut command = command(program, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let mut child = start(command)?;
    let read = answer(&mut child, each);
    let status = child.wait()?;
    Ok((status, read?))
}

/// Reads output line by line, and error output. Both concurrently, because the program blocks until either is read.
fn answer(child: &mut Child, each: impl FnMut(&str) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut stderr = child.stderr.take().expect("stderr is piped");
    std::thread::scope(|scope| {
        let complaint = scope.spawn(move || -> io::Result<Vec<u8>> {
            let mut first = Vec::new();
            stderr.by_ref().take(MAX_STDERR).read_to_end(&mut first)?;
            io::copy(&mut stderr, &mut io::sink())?;
            Ok(first)
        });
        let read = lines(BufReader::new(stdout), each);
        if read.is_err() {
            // Otherwise the program would block on its error output.
            child.kill()?;
        }
        let complaint = complaint.join().unwrap_or_else(|_| Ok(Vec::new()));
        read?;
        complaint
    })
}

/// Passes on each line, except for those that are too long.
fn lines(mut from: impl BufRead, mut each: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        line.clear();
        if from.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        let is_end = !is_whole && (line.len() as u64) < LINE_LIMIT;
        if !is_too_long && (is_whole || is_end) {
            each(&String::from_utf8_lossy(&line))?;
        }
        is_too_long = !is_whole;
    }
}

/// Returns the error output, truncated.
pub(super) fn rejected(program: &'static str, complaint: &[u8]) -> Error {
    let text = String::from_utf8_lossy(complaint);
    Error::Rejected {
        program,
        stderr: text.trim().chars().take(500).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn endless_output_of_a_program_is_an_error() {
        let asking = std::thread::spawn(|| ask("yes", &[], |_| true));
        let error = asking.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Lists { program: "yes", .. }), "{error}");
        let why = error.source().unwrap().to_string();
        assert!(why.contains("more memory than the attempt may use"), "{why}");
    }

    #[test]
    fn endless_lines_are_not_buffered() {
        let lengths = |text: &str| {
            let mut passed = Vec::new();
            let each = |line: &str| {
                passed.push(line.len());
                Ok(())
            };
            lines(text.as_bytes(), each).unwrap();
            passed
        };
        assert_eq!(lengths("ab\n\nabc"), [2, 0, 3]);
        let long = "x".repeat(100_000);
        assert_eq!(lengths(&format!("ab\n{long}\nabc\n{long}")), [2, 3]);
    }

    #[test]
    fn a_failed_check_does_not_count_as_a_missing_rule() {
        let found = |code: &str| finds("sh", &["-c", code]).map_err(|error| error.to_string());
        assert_eq!(
            (found("exit 0"), found("exit 1"), found("exit 2")),
            (Ok(true), Ok(false), Ok(false))
        );
        assert_eq!(
            found("echo locked >&2; exit 4"),
            Err("sh rejected: locked".to_owned())
        );
    }
}
