//! Builds one tool into the cache.
//!
//! Writes: a temporary folder in the cache, renamed to its final name when every program is in it. A process that holds
//! the tool's lock file is the only one to build it, so what an interrupted build left can be removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::recipe::{CProgram, Tool};
use crate::{command, debian};

/// Packages that the C parts of a tool need.
const C_PACKAGES: [&str; 4] = ["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"];
const STILL_BUILDING: Duration = Duration::from_secs(30);

/// Says in words that Go is missing or too old to fetch the version that a `go.mod` asks for.
pub(super) fn check_compiler() -> Result<()> {
    const REMEDY: &str =
        "the cluster's tools are built from Go modules: install Go 1.25 or newer from https://go.dev/dl/";
    let version = command::run("go", &["env", "GOVERSION"]).context(REMEDY)?;
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    // Since 1.21 an older go command downloads the toolchain that go.mod names.
    if minor.is_some_and(|minor| minor < 21) {
        bail!("{} is too old; {REMEDY}", version.trim());
    }
    Ok(())
}

/// Builds `tool` into `dir`, unless another process has done so meanwhile.
pub(super) fn build(tool: &Tool, dir: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let cache = dir.parent().context("the cache has no parent folder")?;
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let lock = File::create(dir.with_extension("lock"))?;
    if lock.try_lock().is_err() {
        say(&format!("{}: another process is building it, waiting", tool.name));
        lock.lock()?;
    }
    if dir.is_dir() {
        return Ok(());
    }
    let started = Instant::now();
    let partial = dir.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    if tool.cgo {
        debian::ensure(&C_PACKAGES, say)?;
    }
    go_build(tool, &partial, say)?;
    for (module, path) in tool.files() {
        keep(tool, module, path, &partial)?;
    }
    if let Some(program) = &tool.c_program {
        c_build(tool, program, &partial)?;
    }
    fs::rename(&partial, dir)?;
    say(&format!("{}: built in {:.0?}", tool.name, started.elapsed()));
    Ok(())
}

fn go_build(tool: &Tool, out: &Path, say: &dyn Fn(&str)) -> Result<()> {
    for (file, package) in tool.programs {
        // A build must not outlive an interrupted `cluster up`.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "TERM",
            "--",
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
        ]);
        command
            .arg("-o")
            .arg(out.join(file))
            .args(["-ldflags", tool.ldflags, "-tags", tool.tags, package]);
        command
            .current_dir(tool.source())
            .env("CGO_ENABLED", if tool.cgo { "1" } else { "0" });
        watch(
            &mut command,
            &out.with_extension("log"),
            &format!("{} ({file})", tool.name),
            say,
        )?;
    }
    Ok(())
}

/// Runs `command` to its end with its output in `log`, and says now and then that it is still running.
fn watch(command: &mut Command, log: &Path, what: &str, say: &dyn Fn(&str)) -> Result<()> {
    let file = File::create(log)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot run setpriv (package util-linux)")?;
    let started = Instant::now();
    let mut next = STILL_BUILDING;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > next {
            say(&format!("{what}: still building after {next:?}"));
            next += STILL_BUILDING;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        bail!("go build failed ({status}), {}", command::tail(log, 20));
    }
    fs::remove_file(log)?;
    Ok(())
}

/// Copies a file or folder of a module, so that later nothing but the cache is needed.
fn keep(tool: &Tool, module: &str, path: &str, out: &Path) -> Result<()> {
    let download = ["mod", "download", "-json", module];
    let module = command::output(Command::new("go").args(download).current_dir(tool.source()))?;
    let module: serde_json::Value = serde_json::from_str(&module)?;
    let dir = module["Dir"]
        .as_str()
        .with_context(|| format!("{module} has no sources"))?;
    // The module cache is read-only; what is copied must be removable.
    let mut copy = Command::new("cp");
    copy.args(["--recursive", "--no-preserve=mode"])
        .arg(Path::new(dir).join(path))
        .arg(out);
    command::output(&mut copy)?;
    Ok(())
}

fn c_build(tool: &Tool, program: &CProgram, out: &Path) -> Result<()> {
    let list = command::output(
        Command::new("go")
            .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", program.module])
            .current_dir(tool.source()),
    )?;
    let module = PathBuf::from(list.trim());
    let mut compile = Command::new("gcc");
    compile.args(program.flags).arg("-o").arg(out.join(program.file));
    compile.args(program.sources.iter().map(|source| module.join(source)));
    command::output(compile.stdin(Stdio::null()))?;
    Ok(())
}
