//! The whole system on the two-node cluster: what the demo claims, and that bad objects harm only themselves.
//!
//! The tests share one cluster and one installation and run one at a time, in the order of their names.

use anyhow::{Context as _, Result, ensure};
use e2e::demo::{checks, installed, scenario};
use e2e::plugin::plugin;
use std::path::Path;
use std::time::Duration;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a1_the_slices_hold_second_network_addresses() -> Result<()> {
    checks::slices_hold_second_network_addresses(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a2_both_servers_answer_over_net1() -> Result<()> {
    checks::both_servers_answer_over_net1(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a3_no_packet_takes_eth0() -> Result<()> {
    checks::no_packet_takes_eth0(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a4_readiness_is_followed() -> Result<()> {
    checks::readiness_is_followed(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a5_an_ordinary_service_is_untouched() -> Result<()> {
    checks::an_ordinary_service_is_untouched(installed()?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a6_clients_on_both_nodes_are_served() -> Result<()> {
    installed()?;
    checks::servers_are_clients_too()
}

/// The proxy of the client's node is stopped while the rules are flushed: it would repair them.
struct Stopped(String);

impl Stopped {
    fn on(node: &str) -> Result<Self> {
        cluster::node_exec(node, &["pkill", "-STOP", "-f", "^/usr/bin/multus-service-proxy"])?;
        Ok(Self(node.to_owned()))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = cluster::node_exec(
            &self.0,
            &["pkill", "-CONT", "-f", "^/usr/bin/multus-service-proxy"],
        );
    }
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a7_the_plugin_shows_the_rules_in_force_and_compares_them_with_the_plan() -> Result<()> {
    installed()?;
    let own = ["-n", scenario::NAMESPACE];
    let rules = plugin(&[&["rules", "pod/client"], &own[..]].concat(), 0)?;
    for part in [
        "nftables, read by multus-service-proxy-",
        " dev net1 src 10.1.0.",
        " tcp dport 80 dnat to numgen random mod 2 map { 0 : 10.1.0.",
        " reject\n",
    ] {
        ensure!(rules.contains(part), "{part}: {rules}");
    }
    let trace = [&["trace", "pod/client", "web:80"], &own[..]].concat();
    let same = plugin(&trace, 0)?;
    ensure!(
        same.contains("compared with the rules in force") && !same.contains("differs"),
        "{same}"
    );
    let explain = [&["explain", "service/web", "--from", "pod/client"], &own[..]].concat();
    let good = plugin(&explain, 0)?;
    ensure!(
        good.contains("the rules in force are those of the plan"),
        "{good}"
    );
    let client = scenario::client()?;
    let stopped = Stopped::on(&client.node)?;
    let netns = cluster::netns(&client.node, client.address)?;
    let flush = format!("--net={netns}");
    cluster::node_exec(&client.node, &["nsenter", &flush, "nft", "flush", "ruleset"])?;
    let (differs, broken) = (plugin(&trace, 1), plugin(&explain, 1));
    drop(stopped);
    let (differs, broken) = (differs?, broken?);
    ensure!(broken.contains("broken at rules: RulesDiffer"), "{broken}");
    ensure!(
        differs.contains("endpoints: planned 10.1.0.") && differs.contains("applied none"),
        "{differs}"
    );
    wait::until(PATIENCE, "the rules to be repaired", || {
        Ok(plugin(&trace, 0).is_ok())
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a8_must_gather_has_logs_and_rules() -> Result<()> {
    installed()?;
    let folder = tempfile::tempdir()?;
    let to = format!("--dest-dir={}", folder.path().display());
    plugin(&["must-gather", &to], 0)?;
    let client = folder
        .path()
        .join(format!("namespaces/{}/rules/client.txt", scenario::NAMESPACE));
    ensure!(std::fs::read_to_string(client)?.contains("dnat to"));
    let logs = folder
        .path()
        .join(format!("namespaces/{}/pods", api::names::NAMESPACE));
    for operand in ["operator", "controller", "proxy"] {
        let name = format!("multus-service-{operand}-");
        let pod = std::fs::read_dir(&logs)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name()
                    .is_some_and(|file| file.to_string_lossy().starts_with(&name))
            });
        let pod = pod.with_context(|| format!("there is no log of {operand}"))?;
        let container = std::fs::read_dir(pod)?.next().context("no container")??.path();
        let log = container
            .join(container.file_name().context("no name")?)
            .join("logs/current.log");
        ensure!(std::fs::read_to_string(log)?.contains(" INFO "));
    }
    // Pods of other tests may come and go meanwhile.
    let missing = std::fs::read_to_string(folder.path().join("not-gathered.txt")).unwrap_or_default();
    let own = [
        format!("pod {}/", scenario::NAMESPACE),
        "permission".to_owned(),
        "logs".to_owned(),
    ];
    ensure!(!own.iter().any(|own| missing.contains(own)), "{missing}");
    Ok(())
}

/// As `oc adm must-gather --image` runs the image.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a8_the_image_of_must_gather_writes_the_report() -> Result<()> {
    installed()?;
    let image = cluster::kubectl(&[
        "-n",
        api::names::NAMESPACE,
        "get",
        "deployment",
        api::names::OPERATOR,
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='RELATED_IMAGE_TOOLS')].value}",
    ])?;
    let name = "must-gather-test";
    cluster::kubectl(&["create", "namespace", name])?;
    let account = format!("{name}:default");
    cluster::kubectl(&[
        "create",
        "clusterrolebinding",
        name,
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={account}"),
    ])?;
    let outcome = gather_in_a_pod(name, image.trim());
    cluster::kubectl(&["delete", "clusterrolebinding", name])?;
    cluster::kubectl(&["delete", "namespace", name, "--timeout=60s"])?;
    outcome
}

fn gather_in_a_pod(name: &str, image: &str) -> Result<()> {
    let overrides = serde_json::json!({"spec": {
        "containers": [{
            "name": name,
            "image": image,
            "command": ["/bin/bash", "-c", "/usr/bin/gather && touch /must-gather/done; sleep 600"],
            "env": [{"name": "MUST_GATHER_SINCE", "value": "2h0m0s"}],
            "volumeMounts": [{"name": "output", "mountPath": "/must-gather"}],
        }],
        "volumes": [{"name": "output", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }});
    let (image, overrides) = (format!("--image={image}"), format!("--overrides={overrides}"));
    let own = ["-n", name];
    cluster::kubectl(&[&["run", name, &image, "--restart=Never", &overrides], &own[..]].concat())?;
    let exec = |command: &[&str]| {
        let first = ["exec", name, "-n", name, "--"];
        cluster::kubectl(&[&first, command].concat())
    };
    wait::until(PATIENCE, "the report to be written", || {
        Ok(exec(&["ls", "/must-gather/done"]).is_ok())
    })?;
    let listed = exec(&["bash", "-c", "tar -C /must-gather -c . | tar -t"])?;
    for file in [
        "./version",
        "./reports/status.txt",
        "/rules/client.txt",
        "/logs/current.log",
    ] {
        ensure!(listed.contains(file), "{file}: {listed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a9_connectivity_test_passes_from_both_nodes_and_names_a_broken_network() -> Result<()> {
    installed()?;
    let own = ["-n", scenario::NAMESPACE];
    let text = plugin(&[&["connectivity-test"], &own[..]].concat(), 0)?;
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(" ok ")).collect();
    ensure!(rows.len() >= 2 && text.contains("every check passed"), "{text}");
    for row in rows {
        ensure!(row.matches(" ok").count() == 6, "{row}");
    }
    let broken = serde_json::json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "no-parent", "namespace": scenario::NAMESPACE},
        "spec": {"config": "{\"cniVersion\": \"0.3.1\", \"type\": \"macvlan\", \"master\": \"absent0\"}"},
    });
    let file = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(file.path(), broken.to_string())?;
    let file = file.path().display().to_string();
    cluster::kubectl(&["apply", "-f", &file])?;
    let node = format!("--node={}", scenario::client()?.node);
    let named = ["connectivity-test", "no-parent", "--timeout=20s", &node];
    let failed = plugin(&[&named, &own[..]].concat(), 1);
    cluster::kubectl(&["delete", "-f", &file])?;
    let failed = failed?;
    ensure!(
        failed.contains("does not start: FailedCreatePodSandBox") && failed.contains("Link not found"),
        "{failed}"
    );
    let left = cluster::kubectl(&[
        "get",
        "namespaces",
        "-l",
        "multusservice.cni.cncf.io/connectivity-test",
    ])?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}

/// The parent interface of a network is down on one node.
struct LinkDown {
    node: String,
    link: String,
}

impl LinkDown {
    fn on(node: &str, link: &str) -> Result<Self> {
        cluster::node_exec(node, &["ip", "link", "set", link, "down"])?;
        Ok(Self {
            node: node.to_owned(),
            link: link.to_owned(),
        })
    }
}

impl Drop for LinkDown {
    fn drop(&mut self) {
        let _ = cluster::node_exec(&self.node, &["ip", "link", "set", &self.link, "up"]);
    }
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a9_connectivity_test_reports_each_check_of_a_network_that_drops_packets() -> Result<()> {
    installed()?;
    let own = ["-n", scenario::NAMESPACE];
    let config = cluster::kubectl(
        &[
            &[
                "get",
                "network-attachment-definition",
                "macvlan1",
                "-o",
                "jsonpath={.spec.config}",
            ],
            &own[..],
        ]
        .concat(),
    )?;
    let config: serde_json::Value = serde_json::from_str(&config)?;
    let parent = config["master"].as_str().context("the network has no parent")?;
    let client = scenario::client()?;
    let down = LinkDown::on(&client.node, parent)?;
    let failed = plugin(
        &[&["connectivity-test", "macvlan1", "--timeout=60s"], &own[..]].concat(),
        1,
    );
    drop(down);
    let failed = failed?;
    // Each node reaches at most the server on itself.
    for part in [
        "FAILED",
        "TCP ",
        "requests failed: ",
        "→ Look whether the nodes reach each other",
    ] {
        ensure!(failed.contains(part), "{part}: {failed}");
    }
    ensure!(!failed.contains("did not finish"), "{failed}");
    wait::until(PATIENCE, "the network to work again", || {
        Ok(checks::both_servers_answer_over_net1(installed()?).is_ok())
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b1_broken_objects_do_not_affect_a_good_service() -> Result<()> {
    let narrator = installed()?;
    let outcome = apply_broken_objects().and_then(|()| {
        broken_objects_are_named()?;
        checks::slices_hold_second_network_addresses(narrator)?;
        checks::both_servers_answer_over_net1(narrator)?;
        // The rules still follow: a change after the broken objects arrived is applied.
        checks::readiness_is_followed(narrator)
    });
    for file in ["services.yaml", "pods.yaml"] {
        cluster::kubectl(&[
            "delete",
            "-f",
            &broken(file),
            "--ignore-not-found",
            "--timeout=60s",
        ])?;
    }
    outcome
}

/// The pods get their broken annotation when they run: Multus writes a good one before.
fn apply_broken_objects() -> Result<()> {
    const BROKEN: [(&str, &str); 3] = [
        ("garbage-status", r#"{"not": ["a list""#),
        (
            "loopback-status",
            r#"[{"name": "demo/macvlan1", "interface": "net1", "ips": ["127.0.0.1"]}]"#,
        ),
        (
            "no-address-status",
            r#"[{"name": "demo/macvlan1", "interface": "net1", "ips": ["10.1.0.300", "", "x"]}]"#,
        ),
    ];
    for file in ["services.yaml", "pods.yaml"] {
        cluster::kubectl(&["apply", "-f", &broken(file)])?;
    }
    for (pod, status) in BROKEN {
        let pod = format!("pod/{pod}");
        cluster::kubectl(&[
            "-n",
            scenario::NAMESPACE,
            "wait",
            &pod,
            "--for=condition=Ready",
            "--timeout=120s",
        ])?;
        let annotation = format!("{}={status}", api::names::NETWORK_STATUS_ANNOTATION);
        cluster::kubectl(&[
            "-n",
            scenario::NAMESPACE,
            "annotate",
            &pod,
            "--overwrite",
            &annotation,
        ])?;
    }
    Ok(())
}

/// Each broken Service has a Warning that names what is wrong.
fn broken_objects_are_named() -> Result<()> {
    for (service, word) in [
        ("no-annotation", "k8s.v1.cni.cncf.io/service-network"),
        ("malformed-annotation", "macvlan1,other/../net"),
        ("external", "ExternalName"),
    ] {
        wait::until(PATIENCE, &format!("a Warning about service {service}"), || {
            let selector = format!("involvedObject.kind=Service,involvedObject.name={service},type=Warning");
            let events = cluster::kubectl(&[
                "-n",
                scenario::NAMESPACE,
                "get",
                "events",
                "--field-selector",
                &selector,
            ])?;
            Ok(events.contains(word))
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn z_removal_leaves_no_rule_and_no_operand() -> Result<()> {
    installed()?;
    let mut pods = scenario::servers()?;
    pods.push(scenario::client()?);
    for pod in &pods {
        ensure!(!pod.rules()?.is_empty(), "{} has nothing to be removed", pod.pod);
    }

    cluster::kubectl(&["delete", "msc", "cluster", "--timeout=120s"])?;

    for pod in &pods {
        let left = pod.rules()?;
        ensure!(left.is_empty(), "left in {}: {left:#?}", pod.pod);
    }
    let operands = cluster::kubectl(&[
        "-n",
        api::names::NAMESPACE,
        "get",
        "deployments,daemonsets",
        "-o",
        "name",
    ])?;
    ensure!(
        operands.trim() == format!("deployment.apps/{}", api::names::OPERATOR),
        "left on the cluster: {operands}"
    );
    Ok(())
}

fn broken(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/broken")
        .join(file)
        .display()
        .to_string()
}
