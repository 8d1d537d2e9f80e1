//! Building the cluster's programs: an interrupted build leaves no process and no half tool, the next one completes it, and
//! from then on no compiler is needed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{command, tools, wait};

const BUILD: &str = "BUILD_THE_CNI_PLUGINS";

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn an_interrupted_build_resumes() -> Result<()> {
    if std::env::var_os(BUILD).is_some() {
        tools::ensure(&[&tools::CNI], &|line| println!("building: {line}"))?;
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let mut interrupted = builder(cache.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait::until(Duration::from_mins(2), "the build to begin", || {
        Ok(!compilers(cache.path())?.is_empty())
    })?;
    interrupted.kill()?;
    interrupted.wait()?;
    wait::until(
        Duration::from_secs(30),
        "the compiler to end with what started it",
        || Ok(compilers(cache.path())?.is_empty()),
    )?;
    ensure!(
        complete(cache.path())?.is_empty(),
        "a half-built tool looks whole"
    );

    let resumed = succeeded(&builder(cache.path()).output()?)?;
    ensure!(
        resumed.contains("cni: building, 1 of 1 tools") && resumed.contains("cni: built in"),
        "{resumed}"
    );
    ensure!(complete(cache.path())?.len() == 1, "{:?}", complete(cache.path()));

    let without_compiler = succeeded(&builder(cache.path()).env("PATH", "/nonexistent").output()?)?;
    ensure!(!without_compiler.contains("building:"), "{without_compiler}");
    Ok(())
}

/// This very test, as another process that builds into `cache`.
fn builder(cache: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a program"));
    command.args([
        "--exact",
        "an_interrupted_build_resumes",
        "--ignored",
        "--nocapture",
    ]);
    command.env(BUILD, "1").env("MULTUS_SERVICE_CACHE", cache);
    command
}

fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn compilers(cache: &Path) -> Result<Vec<String>> {
    let cache = cache.display().to_string();
    let all = command::run("ps", &["-eo", "args"])?;
    Ok(all
        .lines()
        .filter(|line| line.contains("go build") && line.contains(&cache))
        .map(str::to_owned)
        .collect())
}

/// The folders of finished tools.
fn complete(cache: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(cache.join("tools")).context("no tool was begun")?;
    let names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| !name.contains('.')).collect())
}
