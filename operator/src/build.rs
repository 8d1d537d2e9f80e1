//! Builds the desired objects and node labels.
//!
//! Pure: equal inputs give equal objects; the only timestamp in them is an input that does not change between reconciles. The
//! objects are YAML files in `operator/manifests/`; this module sets only the fields that depend on the configuration.

pub mod arguments;
mod controller;
mod manifests;
mod monitoring;
mod pod;
mod proxy;
mod service_validation;
mod tracing;

use crate::cleanup::daemon_set;
use crate::cleanup::node_labels::{self, Goal, LabelChange};
use crate::cleanup::{CLEANUP_ANNOTATION, Removal};
use crate::gather::Observed;
use crate::operands::{Operands, VERSION_LABEL};
use crate::validate::{Intent, ReleaseImages, ValidatedConfig};
use api::names::PROXY;
use k8s_openapi::api::core::v1::PodSpec;
use kube::ResourceExt;
use manifests::Manifests;

/// The desired state of the objects that the operator manages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Dry-run the workloads before anything is written. Not in a removal, which must proceed when objects are rejected.
    pub dry_run: bool,
    /// Keep the finalizer of the configuration.
    pub finalizer: bool,
    /// Node labels to change.
    pub labels: Vec<LabelChange>,
    /// Objects to apply.
    pub operands: Operands,
    /// Delete all other objects with the operator's labels.
    pub prune: bool,
}

/// Version of this operator and of the operands it applies, unless its Deployment sets another.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the objects; `None` when no object may be written.
pub fn build(
    intent: &Intent,
    observed: &Observed,
    namespace: &str,
    images: &ReleaseImages,
) -> Option<Desired> {
    match intent {
        Intent::Observe => None,
        Intent::Install(config) => Some(install(config, observed, namespace)),
        Intent::Remove(removal) => Some(remove(removal, observed, namespace, images)),
    }
}

fn install(config: &ValidatedConfig, observed: &Observed, namespace: &str) -> Desired {
    let Manifests {
        mut identities,
        service_validation,
        controller,
        proxy,
    } = Manifests::in_namespace(namespace);
    let mut controller = controller::configure(controller, config);
    let mut proxy = proxy::configure(proxy, config);
    proxy::align_service(&mut identities.services, &proxy);
    controller
        .labels_mut()
        .insert(VERSION_LABEL.to_owned(), observed.version.clone());
    proxy
        .labels_mut()
        .insert(VERSION_LABEL.to_owned(), observed.version.clone());
    service_validation::add(&mut identities, service_validation, config);
    let labels = labels(observed, template(&proxy).map_or(Goal::Clean(None), Goal::Serve));
    let mut operands = Operands {
        deployments: vec![controller],
        daemon_sets: vec![proxy],
        ..confined(identities, observed)
    };
    if let Some(settings) = &config.monitoring {
        monitoring::add(&mut operands, settings, observed.kinds, namespace);
    }
    if node_labels::any_cleanup_pending(&observed.nodes, &labels)
        && let Some(proxy) = operands.proxy()
    {
        let cleanup = daemon_set::for_labelled_nodes(proxy, None);
        operands.daemon_sets.push(cleanup);
    }
    if !config.network_policy {
        operands.network_policies.clear();
    }
    if !observed.kinds.quick_starts {
        operands.console_quick_starts.clear();
    }
    if !observed.kinds.yaml_samples {
        operands.console_yaml_samples.clear();
    }
    Desired {
        dry_run: true,
        finalizer: true,
        labels,
        operands,
        prune: true,
    }
}

/// The controller is not changed until the nodes are clean. When no operand is left, the finalizer is removed.
fn remove(removal: &Removal, observed: &Observed, namespace: &str, images: &ReleaseImages) -> Desired {
    let live = &observed.live;
    let annotation = live
        .proxy()
        .and_then(|proxy| proxy.annotations().get(CLEANUP_ANNOTATION))
        .map(String::as_str);
    let since = match removal {
        Removal::Delete { .. } => {
            return Desired {
                dry_run: false,
                finalizer: live.blocks_removal(observed.now),
                labels: labels(observed, Goal::GiveUp(annotation)),
                operands: Operands::default(),
                prune: true,
            };
        }
        Removal::CleanNodes { since, .. } => *since,
    };
    let labels = labels(observed, Goal::Clean(annotation));
    let Manifests {
        mut identities,
        proxy,
        ..
    } = Manifests::in_namespace(namespace);
    let running = live
        .proxy()
        .map(|running| daemon_set::from_running_proxy(proxy.clone(), running, since));
    if let Some(running) = &running {
        proxy::align_service(&mut identities.services, running);
    }
    let mut daemon_sets = Vec::new();
    if node_labels::any_cleanup_pending(&observed.nodes, &labels) {
        // Without a proxy: the image of the last cleanup, of the configuration, of the release.
        let image = daemon_set::image(live.cleanup(), &observed.config.spec, images);
        daemon_sets.extend(match (&running, image) {
            (Some(running), _) => Some(daemon_set::for_labelled_nodes(running, Some(since))),
            (None, Some(image)) => Some(daemon_set::for_labelled_nodes(
                &daemon_set::with_image(proxy, image),
                Some(since),
            )),
            (None, None) => None,
        });
    }
    daemon_sets.extend(running);
    Desired {
        dry_run: false,
        finalizer: true,
        labels,
        operands: Operands {
            daemon_sets,
            network_policies: Vec::new(),
            pod_disruption_budgets: Vec::new(),
            console_quick_starts: Vec::new(),
            console_yaml_samples: Vec::new(),
            ..confined(identities, observed)
        },
        prune: false,
    }
}

/// Drops admission policies where the API server does not serve them.
fn confined(mut identities: Operands, observed: &Observed) -> Operands {
    if !observed.kinds.admission_policies {
        identities.admission_policies.clear();
        identities.admission_policy_bindings.clear();
    }
    identities
}

fn labels(observed: &Observed, goal: Goal<'_>) -> Vec<LabelChange> {
    let Observed {
        nodes, pods, live, ..
    } = observed;
    if live.proxy().is_some() {
        return node_labels::label_changes(nodes, pods, goal);
    }
    // Pods that outlive their DaemonSet are terminating.
    let others = pods.iter().filter(|pod| !node_labels::is_pod_of(pod, PROXY));
    node_labels::label_changes(nodes, &others.cloned().collect::<Vec<_>>(), goal)
}

fn template(daemon_set: &k8s_openapi::api::apps::v1::DaemonSet) -> Option<&PodSpec> {
    daemon_set.spec.as_ref()?.template.spec.as_ref()
}

#[cfg(test)]
mod tests;
