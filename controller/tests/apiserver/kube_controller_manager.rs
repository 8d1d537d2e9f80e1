//! kube-controller-manager serves the same Services for the cluster network: its slices and the controller's have the same content.

use std::path::PathBuf;
use std::time::Duration;

use crate::bed::Fixture;
use crate::service_removal::own_server;
use anyhow::{Context as _, Result};
use api::names;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

/// The managed-by value of kube-controller-manager's slices.
const KUBERNETES: &str = "endpointslice-controller.k8s.io";
/// It retries after one, two, four ... seconds.
const SOON: Duration = Duration::from_mins(1);

/// A server with kube-controller-manager, and the kubeconfig of a controller on it.
pub(crate) async fn server_with_twin() -> Result<(Apiserver, PathBuf)> {
    own_server(Options {
        controller_manager: true,
        // No kubelet renews the nodes' leases: they would be tainted and their pods marked unready.
        controller_manager_flags: vec!["--controllers=*,-node-lifecycle-controller".to_owned()],
        ..Options::default()
    })
    .await
}

async fn slices_by(fixture: &Fixture, service: &str, manager: &str) -> Result<Vec<EndpointSlice>> {
    let (name, managed_by) = (names::SERVICE_NAME_LABEL, names::MANAGED_BY_LABEL);
    let labels = ListParams::default().labels(&format!("{name}={service},{managed_by}={manager}"));
    Ok(fixture.api::<EndpointSlice>().list(&labels).await?.items)
}

/// Waits until both writers' slices of a Service are `wanted`, seen through `view`.
pub(crate) async fn both_until<T: PartialEq + std::fmt::Debug>(
    fixture: &Fixture,
    service: &str,
    view: impl Fn(&[EndpointSlice]) -> T,
    wanted: impl Fn(&T) -> bool,
) -> Result<()> {
    let mut last = None;
    let what = format!("one view of {service} by both");
    let found = wait::eventually(SOON, &what, async || {
        let theirs = view(&slices_by(fixture, service, KUBERNETES).await?);
        let managed = view(&slices_by(fixture, service, names::MANAGED_BY).await?);
        let is_done = managed == theirs && wanted(&managed);
        last = Some((managed, theirs));
        Ok(is_done.then_some(()))
    })
    .await;
    found.with_context(|| {
        let (managed, theirs) = last.unzip();
        format!("managed: {managed:?}\ntheirs:  {theirs:?}")
    })
}
