//! promtool accepts what the three binaries serve in the text format: format, names, types and help.

use anyhow::{Context as _, Result, ensure};
use process::exposition::Format;
use std::io::Write as _;
use std::process::{Command, Stdio};
use testbed::tools::{self, PROMETHEUS};

#[path = "../src/metrics_reference/registries.rs"]
mod registries;

/// Reads a page as `promtool check metrics` does: its output, and whether it was content. It lints the names, too.
fn check(page: &str) -> Result<(bool, String)> {
    let program =
        tools::ensure(&[&PROMETHEUS], &|line| eprintln!("{line}"))?.program(&PROMETHEUS, "promtool")?;
    let mut child = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    let mut stdin = child.stdin.take().context("promtool has no standard input")?;
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.success(), words.concat()))
}

#[test]
#[ignore = "level e2e: builds promtool once"]
fn promtool_accepts_the_metrics_of_every_binary() -> Result<()> {
    let [(_, shared), components @ ..] = registries::parts();
    let shared = Format::Text.encode(&shared)?;
    for (component, registry) in components {
        let page = shared.clone() + &Format::Text.encode(&registry)?;
        let (content, words) = check(&page)?;
        ensure!(content && words.is_empty(), "{component}: {words}\n{page}");
    }
    Ok(())
}

/// It reads the text format alone: a page of OpenMetrics has counters without their suffix.
#[test]
#[ignore = "level e2e: builds promtool once"]
fn promtool_rejects_a_page_of_open_metrics() -> Result<()> {
    let [(_, shared), ..] = registries::parts();
    let (content, words) = check(&Format::OpenMetrics.encode(&shared)?)?;
    ensure!(!content, "{words}");
    Ok(())
}
