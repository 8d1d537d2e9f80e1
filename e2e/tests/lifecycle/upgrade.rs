//! An upgrade as an administrator sees it: versions in the configuration's status, images of the operands.

use anyhow::{Context as _, Result, ensure};
use api::names::{CONTROLLER, NAMESPACE, PROXY};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::{cluster, wait};

/// Progress of the upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) operator: String,
    pub(crate) target: String,
    pub(crate) observed: String,
    pub(crate) controller_image: String,
    pub(crate) proxy_image: String,
}

impl State {
    /// State from the API server; the images first, so that they are never newer than the versions.
    pub(crate) fn now() -> Result<Self> {
        let image = |kind: &str, name: &str| -> Result<String> {
            let object = get(&["-n", NAMESPACE, "get", kind, name])?;
            let image = object.pointer("/spec/template/spec/containers/0/image");
            Ok(image.and_then(Value::as_str).context("no image")?.to_owned())
        };
        let proxy_image = image("daemonset", PROXY)?;
        let controller_image = image("deployment", CONTROLLER)?;
        let status = get(&["get", "msc", "cluster"])?["status"].take();
        let version = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            operator: version("operatorVersion"),
            target: version("targetVersion"),
            observed: version("observedVersion"),
            controller_image,
            proxy_image,
        })
    }
}

fn get(args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&cluster::kubectl(
        &[args, &["-o", "json"]].concat(),
    )?)?)
}

/// Kind and name of everything that belongs to the operands.
pub(crate) fn objects() -> Result<String> {
    let kinds = "serviceaccounts,rolebindings,networkpolicies,poddisruptionbudgets,deployments,daemonsets,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let labels = "app.kubernetes.io/managed-by=multus-service-operator";
    cluster::kubectl(&["-n", NAMESPACE, "get", kinds, "-l", labels, "-o", "name"])
}

/// Runs the change and returns the states until the configuration has reached this version.
pub(crate) fn follow(version: &str, upgrade: impl FnOnce() -> Result<()>) -> Result<Vec<State>> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| -> Result<Vec<State>> {
            let mut states: Vec<State> = Vec::new();
            while !done.load(Ordering::SeqCst) {
                // The configuration's owner may be away for a moment, the API server is not.
                let state = State::now()?;
                if states.last() != Some(&state) {
                    states.push(state);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(states)
        });
        let outcome = upgrade().and_then(|()| {
            wait::until(Duration::from_mins(4), &format!("version {version}"), || {
                Ok(State::now()?.observed == version)
            })
        });
        done.store(true, Ordering::SeqCst);
        let states = watcher
            .join()
            .map_err(|_panic| anyhow::anyhow!("the watcher panicked"))??;
        outcome?;
        let mut states = states;
        states.push(State::now()?);
        states.dedup();
        Ok(states)
    })
}

/// The operator reports its version and its target before the rollout is complete; the proxies follow the controller.
pub(crate) fn ensure_in_order(before: &State, steps: &[State], version: &str) -> Result<()> {
    let last = steps.last().context("no steps")?;
    ensure!(
        [&last.operator, &last.target, &last.observed]
            .iter()
            .all(|is| *is == version)
            && last.controller_image != before.controller_image
            && last.proxy_image != before.proxy_image,
        "it ended with {last:#?}"
    );
    let on_the_way = |state: &&State| {
        state.operator == version && state.target == version && state.observed == before.observed
    };
    ensure!(
        steps.iter().any(|state| on_the_way(&state)),
        "the version was reached before the operands were: {steps:#?}"
    );
    let hasty = steps.iter().find(|state| {
        state.proxy_image != before.proxy_image && state.controller_image == before.controller_image
    });
    ensure!(hasty.is_none(), "the proxy went first: {hasty:#?}");
    let early = steps
        .iter()
        .find(|state| state.observed == version && state.proxy_image == before.proxy_image);
    ensure!(early.is_none(), "reached with old proxies: {early:#?}");
    Ok(())
}
