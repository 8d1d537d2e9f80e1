//! Runs a program to its end and turns a failure into words.
//!
//! Writes: everything that the program writes.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Error, Result, anyhow, bail};

/// Runs `program` and returns its standard output. The error names the command, its exit and its last words.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Result<String> {
    output(Command::new(program).args(args).stdin(Stdio::null()))
}

/// [`run`] for a prepared command; its standard input is as prepared.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    checked(command, &output)
}

/// tar with options by which equal files give equal archives: they are of one `time` (seconds since 1970) and of root, in the order of their
/// names.
pub fn reproducible_tar(time: i64) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{time}"));
    tar
}

/// [`run`] with `input` as standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    let mut stdin = child.stdin.take().context("the child has no standard input")?;
    // A child that ends early closes the pipe: its exit status says more than the broken pipe.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    checked(command, &child.wait_with_output()?)
}

fn checked(command: &Command, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let words = if stderr.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        stderr
    };
    bail!(
        "{} failed ({}): {}",
        describe(command),
        output.status,
        last_lines(words.trim(), 15)
    )
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    format!("`{}`", line.chars().take(200).collect::<String>())
}

/// The last `count` lines of a log file, indented, for an error message.
pub fn tail(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    format!(
        "last lines of {}:\n    {}",
        log.display(),
        last_lines(text.trim(), count).replace('\n', "\n    ")
    )
}

/// Adds the last `count` lines of `log` to an error, for `map_err`.
pub fn with_tail(log: &Path, count: usize) -> impl FnOnce(Error) -> Error {
    move |error| anyhow!("{error:#}\n{}", tail(log, count))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_its_exit_and_its_last_words() {
        let error = run("sh", &["-c", "echo why >&2; exit 3"])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`sh -c echo why >&2; exit 3` failed (exit status: 3): why");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("/nonexistent/program", &["x"]).unwrap_err().to_string();
        assert_eq!(error, "cannot run `/nonexistent/program x`");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with_input(&mut Command::new("cat"), "a\nb").unwrap(), "a\nb");
    }
}
