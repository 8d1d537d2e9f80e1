//! `cluster status`: one line per part.
//!
//! Writes: nothing.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::layout::{Machine, Node};
use super::machine;
use super::options::Choices;
use crate::tools::{self, ToolDir};

/// One part of the cluster.
#[derive(Debug)]
pub struct Line {
    part: String,
    /// True when the part is as it should be.
    pub good: bool,
    state: String,
    process: Option<Process>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: i32,
    age: Duration,
}

/// Looks at every part; empty when there is no cluster.
pub fn status() -> Result<Vec<Line>> {
    let Some(choices) = Choices::load()? else {
        return Ok(Vec::new());
    };
    let tools = &tools::ensure(&[&tools::KUBECTL], &|_| {})?;
    let mut lines = Vec::new();
    for part in [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ] {
        lines.push(Line::of_process(Machine::Control, part)?);
    }
    let answer = super::ask(tools, &["get", "--raw=/readyz"]);
    if let Some(apiserver) = lines.get_mut(1).filter(|line| line.good) {
        apiserver.good = answer.is_ok();
        apiserver.state = answer.map_or_else(|error| format!("not ready: {error:#}"), |_| "ready".to_owned());
    }
    lines.push(coredns(tools));
    for node in Node::ALL {
        node_lines(node, &choices, tools, &mut lines)?;
    }
    Ok(lines)
}

fn node_lines(node: Node, choices: &Choices, tools: &ToolDir, lines: &mut Vec<Line>) -> Result<()> {
    let object = super::ask(tools, &["get", "node", &node.to_string(), "-o", "json"])
        .and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
    let info = |field: &str| {
        let info = object
            .as_ref()
            .ok()
            .map(|object| &object["status"]["nodeInfo"][field]);
        info.and_then(Value::as_str)
            .unwrap_or("version unknown")
            .to_owned()
    };
    let machine = Machine::Node(node);
    let mut runtime = Line::of_process(machine, choices.runtime(node).part())?;
    runtime.amend(info("containerRuntimeVersion"));
    let mut kubelet = Line::of_process(machine, "kubelet")?;
    match object.as_ref().map(ready) {
        Ok((is_ready, words)) => {
            kubelet.good &= is_ready;
            kubelet.amend(format!("{} {words}", info("kubeletVersion")));
        }
        Err(error) => kubelet.fail(&format!("node unknown: {error:#}")),
    }
    let mut proxy = Line::of_process(machine, "kube-proxy")?;
    proxy.amend(format!("{} mode", choices.proxy_mode.as_str()));
    lines.extend([runtime, kubelet, proxy, multus(node)?]);
    Ok(())
}

/// Multus is a program that runtimes start: it is there when a node sees it and its configuration.
fn multus(node: Node) -> Result<Line> {
    let mut line = Line {
        part: format!("{node}/multus"),
        good: false,
        state: String::new(),
        process: None,
    };
    let test = [
        "test",
        "-x",
        "/opt/cni/bin/multus",
        "-a",
        "-f",
        "/etc/cni/net.d/00-multus.conf",
    ];
    if machine::pid(Machine::Node(node))?.is_none() {
        line.fail("the node does not run");
    } else if super::node_exec(&node.to_string(), &test).is_ok() {
        line.good = true;
        "installed (thin plugin, started by the runtime)".clone_into(&mut line.state);
    } else {
        line.fail("program or configuration missing");
    }
    Ok(line)
}

fn coredns(tools: &ToolDir) -> Line {
    let mut line = Line {
        part: "coredns".to_owned(),
        good: false,
        state: String::new(),
        process: None,
    };
    let path = [
        "-n",
        "kube-system",
        "get",
        "deployment",
        "coredns",
        "-o",
        "jsonpath={.status.availableReplicas}",
    ];
    match super::ask(tools, &path) {
        Ok(count) if count.trim().parse::<u32>().is_ok_and(|count| count > 0) => {
            line.good = true;
            "available".clone_into(&mut line.state);
        }
        Ok(_) => line.fail("no replica is available"),
        Err(error) => line.fail(&format!("unknown: {error:#}")),
    }
    line
}

fn ready(node: &Value) -> (bool, String) {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let Some(ready) = ready else {
        return (false, "has no Ready condition".to_owned());
    };
    let since = ready["lastTransitionTime"].as_str().unwrap_or("?");
    match ready["status"].as_str() {
        Some("True") => (true, format!("Ready since {since}")),
        _ => (
            false,
            format!(
                "NotReady since {since}: {}",
                ready["message"].as_str().unwrap_or("?")
            ),
        ),
    }
}

impl Line {
    fn of_process(machine: Machine, name: &str) -> Result<Self> {
        let process = machine::part_pid(machine, name)?.and_then(|pid| Some(Process { pid, age: age(pid)? }));
        let part = match machine {
            Machine::Control => name.to_owned(),
            Machine::Node(node) => format!("{node}/{name}"),
        };
        let state = if process.is_some() { "running" } else { "DOWN" };
        Ok(Self {
            part,
            good: process.is_some(),
            state: state.to_owned(),
            process,
        })
    }

    fn amend(&mut self, detail: String) {
        if self.process.is_some() {
            self.state = if self.good {
                detail
            } else {
                format!("NOT GOOD: {detail}")
            };
        }
    }

    fn fail(&mut self, why: &str) {
        self.good = false;
        self.state = format!("DOWN: {why}");
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            part,
            good: _,
            state,
            process,
        } = self;
        write!(f, "{part:<24} {state}")?;
        match process {
            Some(Process { pid, age }) => write!(f, " (pid {pid}, for {})", for_humans(*age)),
            None => Ok(()),
        }
    }
}

fn for_humans(age: Duration) -> String {
    let seconds = age.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn age(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    parse_age(&stat, &uptime)
}

/// proc_pid_stat(5): field 22 is the start in clock ticks after boot, of which Linux shows 100 a second.
fn parse_age(stat: &str, uptime: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let begun = after_name.split_whitespace().nth(19)?.parse::<f64>().ok()? / 100.0;
    let uptime = uptime.split(' ').next()?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64((uptime - begun).max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 5000 1000 10";
        assert_eq!(
            parse_age(stat, "62.50 100.0\n"),
            Some(Duration::from_millis(12_500))
        );
    }

    #[test]
    fn ages_are_words() {
        let ages = [5, 65, 7300].map(|seconds| for_humans(Duration::from_secs(seconds)));
        assert_eq!(ages, ["5 s", "1 min 5 s", "2 h 1 min"]);
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let node = serde_json::json!({"status": {"conditions": [
            {"type": "Ready", "status": "Unknown", "lastTransitionTime": "T", "message": "gone"}]}});
        assert_eq!(ready(&node), (false, "NotReady since T: gone".to_owned()));
    }
}
