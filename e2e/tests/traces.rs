//! Traces on the two-node cluster, at a real OpenTelemetry Collector: a change of endpoints is one trace of the controller and of the
//! proxies, because each derives the same ids.

use anyhow::{Context as _, Result, ensure};
use api::names::{CONTROLLER, NAMESPACE, PROXY};
use e2e::admin::set_spec;
use e2e::demo::{installed, scenario};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use testbed::cluster;
use testbed::otelcol::{Receiver, Span};
use testbed::wait;

const PATIENCE: Duration = Duration::from_mins(2);

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a_change_of_endpoints_is_one_trace_of_controller_and_proxies() -> Result<()> {
    installed()?;
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let receiver = runtime.block_on(Receiver::start_beside_the_control_plane(folder.path()))?;
    set_tracing(&json!({ "endpoint": receiver.endpoint() }))?;
    scale_servers(3)?;
    let traced = trace_of_both(&receiver);
    scale_servers(2)?;
    set_tracing(&Value::Null)?;
    traced
}

fn trace_of_both(receiver: &Receiver) -> Result<()> {
    let spans = wait::value(
        PATIENCE,
        "a trace with spans of the controller and of both nodes",
        || {
            let spans = receiver.spans()?;
            let roots = spans.iter().filter(|span| is_of_web(span, "sync_endpointslices"));
            for root in roots {
                let children: Vec<_> = spans
                    .iter()
                    .filter(|span| is_of_web(span, "sync_proxy_rules") && span.parent_span_id == root.span_id)
                    .cloned()
                    .collect();
                let nodes: BTreeSet<_> = children
                    .iter()
                    .filter_map(|span| span.resource.get("k8s.node.name"))
                    .collect();
                if nodes.len() == cluster::NODES.len() {
                    return Ok(Some((root.clone(), children)));
                }
            }
            let names: Vec<_> = spans.iter().map(|span| (&span.name, &span.trace_id)).collect();
            anyhow::bail!("received {names:?}")
        },
    );
    let (root, children) = spans?;
    ensure!(root.resource["service.name"] == CONTROLLER, "{root:#?}");
    for child in children {
        ensure!(child.resource["service.name"] == PROXY, "{child:#?}");
        ensure!(
            child.trace_id == root.trace_id && child.start >= root.start && child.error.is_none(),
            "{child:#?}"
        );
    }
    Ok(())
}

fn is_of_web(span: &Span, name: &str) -> bool {
    let of = span.attributes.values();
    span.name == name && of.into_iter().any(|value| value == "web")
}

fn scale_servers(replicas: u8) -> Result<()> {
    let namespace = ["-n", scenario::NAMESPACE];
    let replicas = format!("--replicas={replicas}");
    cluster::kubectl(&[&namespace[..], &["scale", "deployment/web", &replicas]].concat())?;
    cluster::kubectl(
        &[
            &namespace[..],
            &["rollout", "status", "deployment/web", "--timeout=120s"],
        ]
        .concat(),
    )?;
    Ok(())
}

/// Sets `spec.tracing`, and waits until controller and proxies run with it.
fn set_tracing(tracing: &Value) -> Result<()> {
    set_spec(&json!({ "tracing": tracing }))?;
    let wanted = tracing["endpoint"].as_str();
    for (kind, name) in [("daemonset", PROXY), ("deployment", CONTROLLER)] {
        let object = format!("{kind}/{name}");
        wait::until(PATIENCE, &format!("the arguments of {object}"), || {
            let args = [
                "-n",
                NAMESPACE,
                "get",
                &object,
                "-o",
                "jsonpath={.spec.template.spec.containers[0].args}",
            ];
            let args = cluster::kubectl(&args)?;
            Ok(args.contains("--tracing-endpoint") == wanted.is_some())
        })?;
        cluster::kubectl(&["-n", NAMESPACE, "rollout", "status", &object, "--timeout=180s"])
            .with_context(|| format!("the roll-out of {object}"))?;
    }
    Ok(())
}
