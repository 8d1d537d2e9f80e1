//! Progress of a command that takes more than a second, on standard error.

use indicatif::ProgressBar;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Interval between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// A spinner on a terminal, lines elsewhere.
#[derive(Debug)]
pub struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Begins to show progress.
    pub fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(spinner) = &spinner {
            spinner.enable_steady_tick(TICK);
        }
        Self { spinner }
    }

    /// Begins with a step that is shown on a terminal alone.
    pub fn on_terminal(step: &str) -> Self {
        let progress = Self::new();
        if progress.spinner.is_some() {
            progress.say(step);
        }
        progress
    }

    /// Shows the current step.
    pub fn say(&self, step: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(step.to_owned()),
            // Standard error may be closed; the command goes on.
            None => _ = writeln!(std::io::stderr(), "{step}"),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    /// Removes the spinner, before the report is printed or an error returns.
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
