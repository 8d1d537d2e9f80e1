//! Which objects should exist.
//!
//! Pure: equal inputs give equal objects; the only time in them is an input that stays what it was. The objects are YAML files
//! in `operator/manifests/`; here is only what the configuration decides.

mod arguments;
mod controller;
mod manifests;
mod proxy;

use crate::gather::Observed;
use crate::operands::Operands;
use crate::removal::Removal;
use crate::validate::{Intent, ValidatedConfig};
use manifests::Manifests;

/// What the cluster should hold of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Whether the configuration must not vanish yet.
    pub finalizer: bool,
    /// Objects that must be exactly as here.
    pub operands: Operands,
    /// Whether everything else that carries our labels is to be removed.
    pub prune: bool,
}

/// Builds the objects; `None` when nothing may be written.
pub fn build(intent: &Intent, observed: &Observed, namespace: &str) -> Option<Desired> {
    match intent {
        Intent::Observe => None,
        Intent::Install(config) => Some(install(config, namespace)),
        Intent::Remove(removal) => Some(remove(removal, &observed.live, namespace)),
    }
}

fn install(config: &ValidatedConfig, namespace: &str) -> Desired {
    let Manifests {
        identities,
        controller,
        proxy,
    } = Manifests::in_namespace(namespace);
    let operands = Operands {
        deployments: vec![controller::configure(controller, config)],
        daemon_sets: vec![proxy::configure(proxy, config)],
        ..identities
    };
    Desired {
        finalizer: true,
        operands,
        prune: true,
    }
}

/// The controller stays as it is until the nodes are clean. When nothing is left, the configuration is free to go.
fn remove(removal: &Removal, live: &Operands, namespace: &str) -> Desired {
    let finalizer = *live != Operands::default();
    let (Removal::CleanNodes { since, .. }, Some(running)) = (removal, live.proxy()) else {
        return Desired {
            finalizer,
            operands: Operands::default(),
            prune: true,
        };
    };
    let Manifests {
        identities,
        controller: _,
        proxy,
    } = Manifests::in_namespace(namespace);
    let operands = Operands {
        daemon_sets: vec![proxy::clean_up(proxy, running, *since)],
        ..identities
    };
    Desired {
        finalizer,
        operands,
        prune: false,
    }
}

#[cfg(test)]
mod tests;
