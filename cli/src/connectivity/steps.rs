//! The steps of one network: servers, their endpoints, clients, results.

use super::objects::{
    CLIENT_LABELS, Destinations, EMPTY, HEADLESS, Objects, SERVER_LABELS, SERVICE, client_name,
};
use super::result::{CheckResult, NetworkResult, NodeResult};
use super::{END, PAUSE, SERVERS, cluster, endpoints};
use crate::explain::{explain, pod_condition, why_not_ready};
use crate::facts::{self, Read, Reader, node_of, phase_of};
use crate::progress::Progress;
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Logs that are read at the same time.
const AT_ONCE: usize = 16;
/// Clients with a failed check that are explained, which takes a dozen requests each.
const EXPLAINED: usize = 3;

/// Inputs of the steps.
pub(super) struct Steps<'a> {
    pub(super) reader: &'a Reader,
    pub(super) objects: &'a Objects,
    pub(super) timeout: Duration,
    pub(super) progress: &'a Progress,
}

impl Steps<'_> {
    /// Tests the network; an error is one of a request.
    pub(super) async fn run(&self, network: &DynamicObject) -> Read<NetworkResult> {
        let Self { reader, objects, .. } = self;
        self.say("creating servers");
        cluster::wait_for_service_account(reader, &objects.namespace, Instant::now() + self.timeout).await;
        cluster::create_network(reader, &objects.network(network)).await?;
        for service in objects.services() {
            cluster::create(reader, &service).await?;
        }
        for server in objects.servers() {
            cluster::create(reader, &server).await?;
        }
        self.say("waiting for the endpoints of its servers");
        let Some(destinations) = self.destinations().await? else {
            return Ok(NetworkResult::failed(self.why_no_endpoints().await?));
        };
        // After its patience a client makes each remaining check once, which takes some seconds each.
        let patience = (self.timeout / 3).as_secs().max(1);
        for (number, node) in objects.nodes.iter().enumerate() {
            let client = objects.client(number, node, &destinations, patience);
            cluster::create(reader, &client).await?;
        }
        self.say(&format!("testing from {} nodes", objects.nodes.len()));
        let mut result = NetworkResult::of(self.results().await?);
        let servers = self.pods(SERVER_LABELS).await?;
        let nodes: BTreeSet<_> = servers.iter().filter_map(node_of).map(str::to_owned).collect();
        result.server_nodes = nodes.into_iter().collect();
        Ok(result)
    }

    fn say(&self, step: &str) {
        self.progress
            .say(&format!("network {}: {step}", self.objects.network));
    }

    /// Waits until the controller has written the endpoints of every server for both Services.
    async fn destinations(&self) -> Read<Option<Destinations>> {
        let end = Instant::now() + self.timeout;
        let mut last = None;
        loop {
            let found = self.read_destinations().await?;
            // Slices of the second family may follow those of the first.
            if found.is_some() && found == last {
                return Ok(found);
            }
            if Instant::now() >= end {
                return Ok(found);
            }
            last = found;
            sleep(PAUSE).await;
        }
    }

    async fn read_destinations(&self) -> Read<Option<Destinations>> {
        let (service, headless) = futures::join!(self.slices(SERVICE), self.slices(HEADLESS));
        let endpoints = endpoints::ready(&service?);
        if endpoints != endpoints::ready(&headless?) {
            return Ok(None);
        }
        let (service, empty) = futures::join!(self.service(SERVICE), self.service(EMPTY));
        Ok(endpoints::destinations(
            &endpoints,
            SERVERS,
            service?.as_ref(),
            empty?.as_ref(),
        ))
    }

    async fn slices(&self, service: &str) -> Read<Vec<EndpointSlice>> {
        let labels = format!("{SERVICE_NAME_LABEL}={service},{MANAGED_BY_LABEL}={MANAGED_BY}");
        self.reader.list(&self.objects.namespace, &labels).await
    }

    async fn service(&self, name: &str) -> Read<Option<Service>> {
        self.reader.get(&self.objects.namespace, name).await
    }

    async fn pods(&self, labels: &str) -> Read<Vec<Pod>> {
        self.reader.list(&self.objects.namespace, labels).await
    }

    /// The warning about a server that does not start, or the broken link of `explain`.
    async fn why_no_endpoints(&self) -> Read<String> {
        let servers = self.pods(SERVER_LABELS).await?;
        if let Some(server) = servers.iter().find(|pod| !is_running(pod)) {
            let why = self.why_not_running(server).await;
            return Ok(format!("{} does not start: {why}", server.name_any()));
        }
        let broken = self.explain(None).await;
        Ok(broken.unwrap_or_else(|| {
            format!(
                "the Service has no endpoints of {SERVERS} servers after {} s",
                self.timeout.as_secs()
            )
        }))
    }

    /// Messages of CNI plugins may hold anything.
    async fn why_not_running(&self, pod: &Pod) -> String {
        let warning = cluster::warning(self.reader, pod).await;
        let scheduled = pod_condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False");
        printable(&warning.unwrap_or_else(|| why_not_ready(pod, scheduled)))
    }

    /// The broken link of the Service, from a client.
    async fn explain(&self, client: Option<&ObjectName>) -> Option<String> {
        let service = ObjectName::new(&self.objects.namespace, SERVICE);
        let explanation = explain(&facts::explain(self.reader, &service, client).await, &service);
        let link = explanation.chain.broken()?;
        Some(
            std::iter::once(&link.says)
                .chain(&link.details)
                .cloned()
                .collect::<Vec<_>>()
                .join("; "),
        )
    }

    /// Waits for the results of every client, then explains the first failed ones.
    async fn results(&self) -> Read<Vec<NodeResult>> {
        let end = Instant::now() + self.timeout;
        let mut results: BTreeMap<usize, NodeResult> = BTreeMap::new();
        loop {
            let is_over = Instant::now() >= end;
            let pods = self.pods(CLIENT_LABELS).await?;
            let pods: BTreeMap<String, Pod> = pods.into_iter().map(|pod| (pod.name_any(), pod)).collect();
            let unfinished = (0..self.objects.nodes.len()).filter(|number| !results.contains_key(number));
            let unfinished: Vec<usize> = unfinished.collect();
            let read = stream::iter(unfinished).map(|number| {
                let pod = pods.get(&client_name(number));
                async move { (number, self.result(number, pod, is_over).await) }
            });
            let mut read = read.buffer_unordered(AT_ONCE);
            while let Some((number, result)) = read.next().await {
                if let Some(result) = result? {
                    results.insert(number, result);
                }
            }
            if is_over || results.len() == self.objects.nodes.len() {
                break;
            }
            sleep(PAUSE).await;
        }
        // A client with a failed check keeps running, so that its rules can be read.
        let failed = results
            .iter_mut()
            .filter(|(_, result)| !result.checks.is_empty() && !result.is_well());
        for (number, result) in failed.take(EXPLAINED) {
            let client = ObjectName::new(&self.objects.namespace, client_name(*number));
            if let Some(broken) = self.explain(Some(&client)).await {
                result.problem.get_or_insert(broken);
            }
        }
        Ok(results.into_values().collect())
    }

    /// The result of one client; `None`: there is none yet.
    async fn result(&self, number: usize, pod: Option<&Pod>, is_over: bool) -> Read<Option<NodeResult>> {
        let node = &self.objects.nodes[number];
        let Some(pod) = pod else {
            return Ok(Some(NodeResult::failed(node, "its client was deleted")));
        };
        let log = cluster::log(self.reader, pod).await?;
        let lines = || log.iter().flat_map(|log| log.lines());
        let checks: Vec<CheckResult> = lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let is_complete = lines().any(|line| line == END);
        let is_final = is_complete || is_over || has_ended(pod) && log.is_some();
        if !is_final {
            return Ok(None);
        }
        let problem = match () {
            () if is_complete => None,
            () if log.is_none() && is_running(pod) => Some("the log of its client cannot be read".to_owned()),
            () if log.is_none() => Some(format!(
                "its client does not start: {}",
                self.why_not_running(pod).await
            )),
            () => Some("its client did not finish".to_owned()),
        };
        Ok(Some(NodeResult {
            node: node.clone(),
            checks,
            problem,
        }))
    }
}

fn is_running(pod: &Pod) -> bool {
    phase_of(pod) == Some("Running")
}

fn has_ended(pod: &Pod) -> bool {
    matches!(phase_of(pod), Some("Succeeded" | "Failed"))
}

/// Without control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().map(printable).collect()
}
