//! The cluster as a thing that comes and goes: `up` twice, `up` killed half-way, `down` without a trace.
//!
//! These tests remove the cluster that is there, and leave none.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::cluster::{kubectl, layout};
use testbed::{command, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cluster");

/// There is one cluster on a machine: one test at a time.
static CLUSTER: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
#[ignore = "needs root, starts a cluster: make test-e2e"]
fn a_second_up_changes_nothing_and_a_killed_node_is_repaired() -> Result<()> {
    let _alone = alone();
    let before = traces_after_down()?;
    // Also shows that nothing that was started holds what its starter had open: `output` waits for the end of the pipes.
    let lock = tempfile::NamedTempFile::new()?;
    let mut locked = Command::new("flock");
    succeeds(
        &locked
            .arg(lock.path())
            .args([PROGRAM, "up"])
            .stdin(Stdio::null())
            .output()?,
    );
    command::run(
        "flock",
        &["--nonblock".as_ref(), lock.path().as_os_str(), "true".as_ref()],
    )?;
    let first = pids()?;
    assert!(first.len() >= 10, "{first:?}");
    succeeds(&cluster(&["up"]).output()?);
    assert_eq!(pids()?, first);

    kill(&processes_of("node2/init")?)?;
    let status = cluster(&["status"]).output()?;
    assert!(!status.status.success());
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("node2/kubelet") && text.contains("DOWN"), "{text}");
    succeeds(&cluster(&["up"]).output()?);
    assert!(cluster(&["status"]).output()?.status.success());
    let after = pids()?;
    let same = |name: &str| {
        after.iter().find(|(part, _)| part == name) == first.iter().find(|(part, _)| part == name)
    };
    assert!(
        same("node1/kubelet") && same("kube-apiserver") && !same("node2/kubelet"),
        "{first:?} {after:?}"
    );

    succeeds(&cluster(&["down"]).output()?);
    no_more_than(&before)
}

#[test]
#[ignore = "needs root, starts a cluster: make test-e2e"]
fn down_after_a_killed_up_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let before = traces_after_down()?;
    for step in ["network", "node1 started", "apiserver ready", "applied"] {
        kill_up_after(step)?;
        succeeds(&cluster(&["down"]).output()?);
        no_more_than(&before).with_context(|| format!("`up` was killed after {step:?}"))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root, starts a cluster: make test-e2e"]
fn an_up_that_cannot_work_says_why_and_makes_nothing() -> Result<()> {
    let _alone = alone();
    let before = traces_after_down()?;
    // An address of a network namespace of our own would not be seen: the route is the machine's, for a moment.
    let route = ["route", "add", "192.168.213.128/25", "dev", "lo"];
    command::run("ip", &route)?;
    let rejected = rejection(&mut cluster(&["up"]));
    command::run("ip", &["route", "delete", "192.168.213.128/25", "dev", "lo"])?;
    says(&rejected?, "a route to 192.168.213.128/25 by lo, which overlaps")?;

    let copy = tempfile::Builder::new().permissions(world_readable()).tempdir()?;
    let copied = copy.path().join("cluster");
    std::fs::copy(PROGRAM, &copied)?;
    let mut unprivileged = Command::new("setpriv");
    unprivileged
        .args(["--reuid=65534", "--clear-groups"])
        .arg(&copied)
        .arg("up");
    says(&rejection(&mut unprivileged)?, "needs root")?;

    let mut full_disk = Command::new("unshare");
    let script =
        format!("mount -t tmpfs -o size=1m tmpfs /mnt && MULTUS_SERVICE_CACHE=/mnt exec {PROGRAM} up");
    full_disk.args(["--mount", "sh", "-c", &script]);
    says(
        &rejection(&mut full_disk)?,
        "disk space for /mnt is low: 0.0 GiB available, 12.0 GiB needed",
    )?;

    // Root that may not make links meets what a kernel without them answers.
    let mut no_links = Command::new("setpriv");
    no_links.args([
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        PROGRAM,
        "up",
    ]);
    says(
        &rejection(&mut no_links)?,
        "veth links do not work: the kernel needs CONFIG_VETH",
    )?;

    let holder = UnixListener::bind_addr(&SocketAddr::from_abstract_name(layout::NAME)?)?;
    says(
        &rejection(&mut cluster(&["up"]))?,
        "another `cluster up` or `cluster down` is at work",
    )?;
    drop(holder);

    // The attempts got as far as their own directory.
    succeeds(&cluster(&["down"]).output()?);
    no_more_than(&before)
}

/// Returns the error of a command that must fail.
fn rejection(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it succeeded: {words}");
    Ok(words)
}

fn says(words: &str, want: &str) -> Result<()> {
    ensure!(words.contains(want), "it does not say {want:?} but: {words}");
    Ok(())
}

fn world_readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

fn cluster(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    command
}

fn succeeds(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Starts `up`, and kills it as soon as it reports `step`.
fn kill_up_after(step: &str) -> Result<()> {
    let mut up = cluster(&["up"]).stderr(Stdio::piped()).spawn()?;
    let stderr = up.stderr.take().context("up has no stderr")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines() {
        lines.push(line?);
        if lines.last().is_some_and(|line| line.contains(step)) {
            up.kill()?;
            up.wait()?;
            return Ok(());
        }
    }
    anyhow::bail!("`up` ended without reporting {step:?}: {lines:#?}")
}

/// (part, pid) of every part with a process, as `status` shows them.
fn pids() -> Result<Vec<(String, String)>> {
    let text = String::from_utf8(cluster(&["status"]).output()?.stdout)?;
    let of_line = |line: &str| {
        let pid = line.split_once("(pid ")?.1.split_once(',')?.0;
        Some((line.split_whitespace().next()?.to_owned(), pid.to_owned()))
    };
    assert!(kubectl(&["get", "nodes"])?.contains("node2"));
    Ok(text.lines().filter_map(of_line).collect())
}

fn processes_of(part: &str) -> Result<Vec<i32>> {
    let hierarchies = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/pids",
    ];
    let files = hierarchies.map(|dir| format!("{dir}/{}/{part}/cgroup.procs", layout::NAME));
    let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    text.context("no such cgroup")?
        .lines()
        .map(|line| Ok(line.parse()?))
        .collect()
}

fn kill(pids: &[i32]) -> Result<()> {
    assert!(!pids.is_empty());
    for pid in pids {
        // Killing the first of them ends the others.
        let _ = command::run("kill", &["-KILL", &pid.to_string()]);
    }
    wait::until(Duration::from_mins(1), "the killed to be gone", || {
        Ok(pids
            .iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists()))
    })
}

/// State of the machine without a cluster.
fn traces_after_down() -> Result<BTreeSet<String>> {
    succeeds(&cluster(&["down"]).output()?);
    traces()
}

/// Everything that did not exist before must disappear; the kernel destroys namespaces asynchronously.
fn no_more_than(before: &BTreeSet<String>) -> Result<()> {
    let mut left = Vec::new();
    let done = wait::until(Duration::from_mins(1), "every trace to go", || {
        left = traces()?.difference(before).cloned().collect();
        Ok(left.is_empty())
    });
    done.with_context(|| format!("left over: {left:#?}"))
}

/// Possible leftovers of a cluster, and the commands that list them. Other programs make cgroups and processes too, at any time: these count
/// by name.
const LOOKS: [(&str, &str); 10] = [
    ("mount", "awk '{print $5}' /proc/self/mountinfo"),
    ("link", "ip -oneline link | awk -F': ' '{print $2}'"),
    ("route", "ip route show table all; ip -6 route show table all"),
    (
        "namespace",
        "lsns --noheadings --output TYPE,NS | grep -E 'net|pid|mnt|uts'",
    ),
    (
        "cgroup",
        "find /sys/fs/cgroup -type d | grep -E 'multus-service-bed|kubepods|crio|containerd|conmon|/pod'",
    ),
    (
        "process",
        "ps -eo args= | grep -E '/multus-service-bed|kubelet|kube-proxy|coredns|crio|containerd|conmon|/pause'",
    ),
    (
        "file",
        "ls -d /run/* /var/lib/* /var/log/* /etc/* /etc/cni/* /opt/* /usr/libexec/*",
    ),
    ("socket", "ss -Hxl | awk '{print $5}' | grep multus-service"),
    (
        "setting",
        "cd /proc/sys && grep . vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops",
    ),
    ("module", "cut -d' ' -f1 /proc/modules"),
];

fn traces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (kind, script) in LOOKS {
        // `grep` and `ls` fail when there is nothing, which is what is hoped for.
        let output = Command::new("sh").args(["-c", script]).output()?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let listed = lines.lines().filter(|line| !line.contains("grep -E"));
        found.extend(listed.map(|line| format!("{kind} {line}")));
    }
    Ok(found)
}
