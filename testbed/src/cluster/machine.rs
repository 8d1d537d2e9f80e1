//! Machines: how a network namespace becomes something with processes, and how a command gets in.
//!
//! Writes: `machines/<name>.sh` in the state directory, and processes. A machine is a process tree with a pid
//! namespace of its own: when its pid 1 dies, the kernel kills the rest, so nothing survives by hiding.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::cgroup;
use super::layout::{self, Machine, state};
use crate::{command, wait};

const START: Duration = Duration::from_mins(1);

/// A program that a machine keeps running.
#[derive(Debug)]
pub(super) struct Part {
    /// The name of its log and its cgroup.
    pub(super) name: &'static str,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// A command that succeeds once the next part may start.
    pub(super) ready: Option<Vec<String>>,
}

/// Parts of a machine.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) machine: Machine,
    /// Kernel settings of its network namespace, below /proc/sys/net.
    pub(super) sysctls: Vec<(String, &'static str)>,
    /// Directories of programs before those of the system.
    pub(super) path: Vec<PathBuf>,
    /// In starting order.
    pub(super) parts: Vec<Part>,
}

/// The pid of the machine's pid 1, as the machine outside sees it; `None` when it does not run.
pub(super) fn pid(machine: Machine) -> Result<Option<i32>> {
    let pids = cgroup::processes(machine, cgroup::INIT)?;
    Ok(pids.into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        is_pid_1(&status)
    }))
}

/// The pid of a part as the machine outside sees it; `None` while it does not run.
///
/// It is the child of the shell that keeps the part running. Others in its cgroup are its children, or outlived it as
/// containerd's shims do; those are children of the machine's pid 1.
pub(super) fn part_pid(machine: Machine, name: &str) -> Result<Option<i32>> {
    let init = pid(machine)?;
    let keepers = cgroup::processes(machine, cgroup::INIT)?;
    let kept = |pid: &i32| {
        parent(*pid).is_some_and(|parent| Some(parent) != init && keepers.contains(&parent))
            && !is_shell(*pid)
    };
    Ok(cgroup::processes(machine, name)?.into_iter().find(kept))
}

/// Between joining its cgroup and becoming the program, a part is the shell that starts it.
fn is_shell(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "bash")
}

/// proc_pid_stat(5): the fourth field, after a name that may contain anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// proc_pid_status(5): `NSpid` ends with the pid in the innermost namespace.
fn is_pid_1(status: &str) -> bool {
    let line = status
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .unwrap_or_default();
    let pids: Vec<_> = line.split_whitespace().skip(1).collect();
    pids.len() > 1 && pids.last() == Some(&"1")
}

/// True when the running machine was started with this very plan.
pub(super) fn is_current(plan: &Plan) -> Result<bool> {
    let running = fs::read_to_string(script(plan.machine)).unwrap_or_default();
    Ok(render(plan)? == running)
}

fn script(machine: Machine) -> PathBuf {
    state().join("machines").join(format!("{}.sh", machine.name()))
}

/// Starts the machine. It outlives this process, its terminal and its pipes.
pub(super) fn start(plan: &Plan) -> Result<()> {
    let machine = plan.machine;
    let parts: Vec<_> = plan.parts.iter().map(|part| part.name).collect();
    cgroup::create(machine, &parts)?;
    fs::create_dir_all(layout::logs(machine))?;
    let script = script(machine);
    fs::create_dir_all(state().join("machines"))?;
    fs::write(&script, render(plan)?)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout::logs(machine).join("machine.log"))?;
    // It joins its cgroup before anything else. If `down` has removed that meanwhile, it ends here.
    // And it lets go of every file that our caller left open: a lock, say, would else be held as long as the cluster runs.
    let join = r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done
        echo 0 >"$1/cgroup.procs" && shift && exec "$@""#;
    let mut launch = Command::new("setsid");
    launch
        .args(["--fork", "bash", "-c", join, "bash"])
        .arg(cgroup::part(machine, cgroup::INIT)?);
    launch.args(["nsenter", &format!("--net={}", machine.netns().display())]);
    launch.args([
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--fork",
        "--propagation=slave",
        "--kill-child",
    ]);
    launch.arg("bash").arg(&script).current_dir("/");
    launch.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let status = launch
        .status()
        .context("cannot run setsid (package util-linux)")?;
    if !status.success() {
        return Err(anyhow!("cannot start {} ({status})", machine.name()));
    }
    let what = format!("{} to start", machine.name());
    wait::until(START, &what, || Ok(pid(machine)?.is_some()))
        .map_err(command::with_tail(&layout::logs(machine).join("machine.log"), 10))
}

/// Kills the machine with everything in it.
pub(super) fn stop(machine: Machine) -> Result<()> {
    cgroup::remove(Some(machine))
}

/// A command inside the machine, all its namespaces included; prepared, not started.
pub(super) fn enter<S: AsRef<OsStr>>(machine: Machine, args: &[S]) -> Result<Command> {
    let pid = pid(machine)?.with_context(|| {
        format!(
            "{} does not run; see `cluster status`, and start it with `cluster up`",
            machine.name()
        )
    })?;
    let mut nsenter = Command::new("nsenter");
    nsenter.args([
        "--target",
        &pid.to_string(),
        "--mount",
        "--uts",
        "--net",
        "--pid",
        "--wd=/",
        "--",
    ]);
    nsenter.args(args);
    Ok(nsenter)
}

fn render(plan: &Plan) -> Result<String> {
    let Plan {
        machine,
        sysctls,
        path,
        parts,
    } = plan;
    let dirs: Vec<_> = path.iter().map(|dir| dir.display().to_string()).collect();
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let path = dirs.into_iter().chain([system]).collect::<Vec<_>>().join(":");
    let cgroup = cgroup::part(*machine, "")?.display().to_string();
    let mut lines = vec![
        format!("STATE={}", quote(&state().display().to_string())),
        format!("LOGS={}", quote(&layout::logs(*machine).display().to_string())),
        format!("CGROUP={}", quote(cgroup.trim_end_matches('/'))),
        include_str!("machine/machine.sh").to_owned(),
        "mount -t proc proc /proc || exit".to_owned(),
        format!("echo {} >/proc/sys/kernel/hostname", quote(&machine.name())),
        format!("export PATH={}", quote(&path)),
    ];
    if let Machine::Node(node) = machine {
        lines.push(format!(
            "node_file_system {}",
            quote(&node.dir().display().to_string())
        ));
    }
    // Mounts of pods are seen by hostPath volumes with mount propagation, as on a node with systemd.
    lines.push("mount --make-rshared /".to_owned());
    lines.extend(
        sysctls
            .iter()
            .map(|(name, value)| format!("echo {value} >/proc/sys/net/{name} || exit")),
    );
    for part in parts {
        lines.push(format!("part {} {}", part.name, words(&part.command)));
        lines.extend(
            part.ready
                .iter()
                .map(|ready| format!("wait_for {}", words(ready))),
        );
    }
    lines.push("while :; do wait; sleep 1; done".to_owned());
    Ok(lines.join("\n") + "\n")
}

fn words(command: &[String]) -> String {
    command
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::of_the_machine("Name:\tsystemd\nNSpid:\t1\n", false)]
    #[case::of_ours("Name:\tbash\nNSpid:\t4711\t1\n", true)]
    #[case::child_of_ours("NSpid:\t4712\t7\n", false)]
    #[case::gone("", false)]
    fn pid_1_is_recognized_by_its_innermost_pid(#[case] status: &str, #[case] want: bool) {
        assert_eq!(is_pid_1(status), want);
    }

    #[test]
    fn the_parent_of_a_process_is_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent(me), Some(nix::unistd::getppid().as_raw()));
    }

    #[test]
    fn an_argument_reaches_the_program_as_it_is() {
        let awkward = "it's $HOME; `x` \"y\"\n";
        let printed = command::run("sh", &["-c", &format!("printf %s {}", quote(awkward))]).unwrap();
        assert_eq!(printed, awkward);
    }

    #[test]
    fn the_shell_accepts_the_script() {
        let plan = Plan {
            machine: Machine::ALL[1],
            sysctls: vec![("ipv4/ip_forward".to_owned(), "1")],
            path: vec![PathBuf::from("/opt/tools")],
            parts: vec![Part {
                name: "kubelet",
                command: vec!["kubelet".to_owned(), "--a=b".to_owned()],
                ready: Some(vec!["true".to_owned()]),
            }],
        };
        let script = render(&plan).unwrap();
        command::run_with_input(Command::new("bash").args(["-n", "-s"]), &script).unwrap();
        let order = [
            "node_file_system",
            "ip_forward",
            "part kubelet 'kubelet' '--a=b'",
            "wait_for 'true'",
        ];
        let at: Vec<_> = order.iter().map(|text| script.rfind(text).unwrap()).collect();
        assert!(at.is_sorted(), "{at:?}");
    }
}
