//! Output of the demo: headings, explanations, the commands of a user and their output.

use anyhow::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use testbed::cluster;

/// Prints to standard output. Remembers which proofs held.
#[derive(Debug, Default)]
pub struct Narrator {
    steps: AtomicUsize,
    proofs: Mutex<Vec<String>>,
}

impl Narrator {
    /// A numbered step.
    pub fn step(&self, title: &str) {
        let number = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        line(&format!("\n{number}. {title}"));
    }

    /// Words between commands; paragraphs are separated by newlines.
    pub fn say(&self, text: &str) {
        for paragraph in text.lines() {
            line(format!("   {paragraph}").trim_end());
        }
    }

    /// Shows a kubectl command, runs it, shows what it printed and returns that.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let typed = args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ");
        line(&format!("\n   $ kubectl {}", typed.replace('\n', "\n       ")));
        let output = cluster::kubectl(args)?;
        for text in output.lines() {
            line(&format!("     {text}"));
        }
        Ok(output)
    }

    /// A claim that held.
    pub fn proved(&self, claim: &str) {
        line(&format!("\n   PROVED: {claim}"));
        self.proofs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(claim.to_owned());
    }

    /// The claims that held, in their order.
    pub fn proofs(&self) -> Vec<String> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[expect(clippy::print_stdout, reason = "printing is what the demo is for")]
fn line(text: &str) {
    println!("{text}");
}

/// The argument as it would be typed into a shell.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("demo", "demo")]
    #[case("app=web", "app=web")]
    #[case("a b", "'a b'")]
    #[case("it's", r"'it'\''s'")]
    #[case("", "''")]
    fn a_command_is_shown_as_it_would_be_typed(#[case] argument: &str, #[case] want: &str) {
        assert_eq!(quoted(argument), want);
    }
}
