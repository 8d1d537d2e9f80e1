//! The proxy of a node, as its pod and as its process.

use anyhow::{Context as _, Result, ensure};
use api::names::{NAMESPACE, PROXY, PROXY_METRICS_PORT, RULES_APPLIED_CONDITION};
use e2e::admin::set_spec;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::{cluster, wait};

/// One proxy.
pub(crate) struct Proxy {
    pub(crate) node: String,
    pub(crate) name: String,
    uid: String,
    pub(crate) container: String,
    conditions: Value,
    /// Address of the node; IPv4 in this test bed.
    pub(crate) host_ip: String,
}

/// Resources used by the process, and whether it ran programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) own: Duration,
    /// Page faults of children that ended: any program, however short, has some.
    pub(crate) children_faults: u64,
}

/// Resources held by the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) memory_kib: u64,
}

/// A token of an account that may read everything, which is created when missing.
fn token() -> Result<String> {
    let account = ["-n", "default", "create", "serviceaccount", "e2e-reader"];
    let binding = [
        "create",
        "clusterrolebinding",
        "e2e-reader",
        "--clusterrole=cluster-admin",
        "--serviceaccount=default:e2e-reader",
    ];
    for create in [&account[..], &binding] {
        if let Err(error) = cluster::kubectl(create) {
            ensure!(format!("{error:#}").contains("already exists"), error);
        }
    }
    let token = cluster::kubectl(&["-n", "default", "create", "token", "e2e-reader"])?;
    Ok(token.trim().to_owned())
}

impl Proxy {
    /// The Ready one on a node.
    pub(crate) fn on(node: &str) -> Result<Self> {
        wait::value(
            Duration::from_mins(2),
            &format!("a Ready proxy on {node}"),
            || Self::find(node),
        )
    }

    fn find(node: &str) -> Result<Option<Self>> {
        let selector = format!("app.kubernetes.io/name={PROXY}");
        let fields = format!("spec.nodeName={node}");
        let listed = cluster::kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            "pods",
            "-l",
            &selector,
            "--field-selector",
            &fields,
            "-o",
            "json",
        ])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let mut live = listed["items"].as_array().into_iter().flatten().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["containerStatuses"][0]["ready"] == true
        });
        let Some(pod) = live.next() else { return Ok(None) };
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a field is missing");
        Ok(Some(Self {
            node: node.to_owned(),
            name: text(&pod["metadata"]["name"])?,
            uid: text(&pod["metadata"]["uid"])?,
            container: text(&pod["status"]["containerStatuses"][0]["containerID"])?,
            conditions: pod["status"]["conditions"].clone(),
            host_ip: text(&pod["status"]["hostIP"])?,
        }))
    }

    /// Status, reason and message of the condition `RulesApplied`; empty when it is not there.
    pub(crate) fn condition(&self) -> Result<[String; 3]> {
        let conditions = self.conditions.as_array().context("no conditions")?;
        let ours = conditions
            .iter()
            .find(|condition| condition["type"] == RULES_APPLIED_CONDITION);
        let text = |field: &str| {
            ours.and_then(|ours| ours[field].as_str())
                .unwrap_or_default()
                .to_owned()
        };
        Ok(["status", "reason", "message"].map(text))
    }

    /// Returns its debug state from `/state`, as a client with every right.
    pub(crate) fn state(&self) -> Result<Value> {
        let url = format!("https://{}:{PROXY_METRICS_PORT}/state", self.host_ip);
        let header = format!("Authorization: Bearer {}", token()?);
        let curl = [
            "curl",
            "-sS",
            "--insecure",
            "--fail",
            "--max-time",
            "10",
            "-H",
            &header,
            &url,
        ];
        let text = cluster::node_exec(&self.node, &curl)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Its process, as the node sees it: the one of its pod that is no pause.
    pub(crate) fn pid(&self) -> Result<String> {
        pid(&self.node, &self.uid).with_context(|| format!("of pod {}", self.name))
    }

    /// A file of its process in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> Result<String> {
        cluster::node_exec(&self.node, &["cat", &format!("/proc/{}/{file}", self.pid()?)])
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) -> Result<()> {
        cluster::node_exec(&self.node, &["kill", "-9", &self.pid()?])?;
        Ok(())
    }

    /// Waits until another process does its job.
    pub(crate) fn wait_for_another(&self, limit: Duration) -> Result<()> {
        wait::until(limit, &format!("another proxy on {}", self.node), || {
            Ok(Self::find(&self.node)?.is_some_and(|proxy| proxy.container != self.container))
        })
    }

    /// Returns the resources it holds now.
    pub(crate) fn resources(&self) -> Result<Resources> {
        let pid = self.pid()?;
        let script = format!(
            "ls /proc/{pid}/fd | wc -l; sed -n 's/^Threads:[^0-9]*//p; s/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/{pid}/status"
        );
        let output = cluster::node_exec(&self.node, &["sh", "-c", &script])?;
        let numbers: Vec<u64> = output
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        // status lists VmRSS before Threads.
        let [descriptors, memory_kib, threads] = numbers[..] else {
            anyhow::bail!("not three numbers: {output:?}");
        };
        Ok(Resources {
            descriptors,
            threads,
            memory_kib,
        })
    }

    /// Returns the resources used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let stat = self.proc("stat")?;
        // Behind the name, which may hold spaces: field 3 and on; cminflt is 11, utime and stime are 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let number = |field: usize| -> Result<u64> {
            let text = fields.split(' ').nth(field - 3).context("stat is short")?;
            Ok(text.trim().parse()?)
        };
        Ok(Usage {
            own: Duration::from_millis((number(14)? + number(15)?) * 10),
            children_faults: number(11)?,
        })
    }
}

/// Has the operator roll out all proxies with this backend, and waits for it.
pub(crate) fn set_backend(backend: &str) -> Result<()> {
    set_spec(&json!({ "proxy": { "backend": backend } }))?;
    let argument = format!("--backend={backend}");
    wait::until(
        Duration::from_mins(1),
        &format!("a DaemonSet with {argument}"),
        || {
            let found = cluster::kubectl(&[
                "-n",
                NAMESPACE,
                "get",
                "daemonset",
                PROXY,
                "-o",
                "jsonpath={.spec.template.spec.containers[0].args}",
            ])?;
            Ok(found.contains(&argument))
        },
    )?;
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &format!("daemonset/{PROXY}"),
        "--timeout=180s",
    ])?;
    Ok(())
}

/// Returns the proxy process in the pod with this UID.
pub(crate) fn pid(node: &str, uid: &str) -> Result<String> {
    let find = format!(
        "for p in /proc/[0-9]*; do grep -q {uid} $p/cgroup 2>/dev/null && grep -q '^multus-service-' $p/comm 2>/dev/null && echo ${{p#/proc/}} && exit; done; exit 1"
    );
    let pid = cluster::node_exec(node, &["sh", "-c", &find])?;
    ensure!(!pid.trim().is_empty(), "there is no process");
    Ok(pid.trim().to_owned())
}
