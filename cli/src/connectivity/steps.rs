//! The steps of one network: servers, their endpoints, clients, results.

use super::objects::{CLIENT_LABELS, Destinations, EMPTY, HEADLESS, Objects, SERVER_LABELS, SERVICE};
use super::result::{NetworkResult, NodeResult};
use super::{PAUSE, SERVERS, cluster, endpoints};
use crate::explain::{explain, pod_condition, why_not_ready};
use crate::facts::{self, Read, Reader};
use crate::progress::Progress;
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use std::time::Duration;
use tokio::time::{Instant, sleep};

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
        cluster::create_namespace(reader, objects, Instant::now() + self.timeout).await?;
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
        // A client waits for its rules no longer than half of the time that it has.
        let patience = (self.timeout / 2).as_secs().max(1);
        for (number, node) in objects.nodes.iter().enumerate() {
            let client = objects.client(number, node, &destinations, patience);
            cluster::create(reader, &client).await?;
        }
        self.say(&format!("testing from {} nodes", objects.nodes.len()));
        Ok(NetworkResult::of(self.results().await?))
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

    async fn why_not_running(&self, pod: &Pod) -> String {
        let warning = cluster::warning(self.reader, pod).await;
        let scheduled = pod_condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False");
        warning.unwrap_or_else(|| why_not_ready(pod, scheduled))
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

    /// Waits for the results of every client.
    async fn results(&self) -> Read<Vec<NodeResult>> {
        let end = Instant::now() + self.timeout;
        let mut results: Vec<Option<NodeResult>> = vec![None; self.objects.nodes.len()];
        loop {
            let pods = self.pods(CLIENT_LABELS).await?;
            for (number, node) in self.objects.nodes.iter().enumerate() {
                let name = format!("client-{number}");
                let pod = pods.iter().find(|pod| pod.name_any() == name);
                if results[number].is_none() {
                    results[number] = self.result(node, pod, Instant::now() >= end).await?;
                }
            }
            if results.iter().all(Option::is_some) {
                return Ok(results.into_iter().flatten().collect());
            }
            sleep(PAUSE).await;
        }
    }

    /// The result of one client; `None`: there is none yet.
    async fn result(&self, node: &str, pod: Option<&Pod>, is_over: bool) -> Read<Option<NodeResult>> {
        let Some(pod) = pod else {
            return Ok(Some(NodeResult::failed(node, "its client was deleted")));
        };
        let log = cluster::log(self.reader, pod).await?.unwrap_or_default();
        let checks = log.lines().find_map(|line| serde_json::from_str(line).ok());
        if let Some(checks) = checks {
            let mut result = NodeResult {
                node: node.to_owned(),
                checks,
                problem: None,
            };
            if !result.is_well() {
                // A client with a failed check stays, so that its rules can be read.
                result.problem = self.explain(Some(&ObjectName::of(pod))).await;
            }
            return Ok(Some(result));
        }
        if !is_over && !has_ended(pod) {
            return Ok(None);
        }
        let why = if is_running(pod) || has_ended(pod) {
            let last = log.lines().last().unwrap_or("its log is empty");
            format!("its client printed no results: {last}")
        } else {
            format!("its client does not start: {}", self.why_not_running(pod).await)
        };
        Ok(Some(NodeResult::failed(node, why)))
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}
