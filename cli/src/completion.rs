//! Shell completion: scripts, and candidates for kubectl, which runs the program `kubectl_complete-NAME` of a plugin on the PATH
//! (kubectl 1.26 and newer) and reads the output of cobra's `__complete`.

use crate::args::{Cli, Shell};
use clap::CommandFactory as _;
use clap_complete::engine;
use std::ffi::OsString;
use std::fmt::Write as _;

/// cobra's ShellCompDirectiveNoFileComp: no file names are added.
const NO_FILES: &str = ":4";

pub fn script(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Kubectl => return "#!/bin/sh\nexec kubectl-multus_service __complete -- \"$@\"\n".to_owned(),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-multus_service", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Returns candidates for the last word, in the format of cobra.
pub fn candidates(words: &[String]) -> String {
    let mut all: Vec<OsString> = vec!["kubectl-multus_service".into()];
    all.extend(words.iter().map(OsString::from));
    if words.is_empty() {
        all.push(OsString::new());
    }
    let last = all.len() - 1;
    let found = engine::complete(&mut Cli::command(), all, last, None).unwrap_or_default();
    let mut text = String::new();
    for candidate in found.iter().filter(|candidate| !candidate.is_hide_set()) {
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default().to_owned();
        let _ = writeln!(text, "{}\t{help}", candidate.get_value().to_string_lossy());
    }
    text + NO_FILES + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["ex"], "explain\t", "status")]
    #[case(&[""], "status\t", "__complete")]
    #[case(&["explain", "--fr"], "--from\t", "--output")]
    #[case(&["status", "-o", ""], "yaml\t", "explain")]
    fn kubectl_gets_candidates(#[case] words: &[&str], #[case] has: &str, #[case] absent: &str) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = candidates(&words);
        assert!(text.contains(has) && !text.contains(absent), "{text}");
        assert!(text.ends_with(":4\n"));
    }

    #[rstest]
    #[case(Shell::Bash)]
    #[case(Shell::Zsh)]
    #[case(Shell::Fish)]
    #[case(Shell::Kubectl)]
    fn each_shell_has_a_script(#[case] shell: Shell) {
        assert!(script(shell).contains("kubectl-multus_service"));
    }
}
