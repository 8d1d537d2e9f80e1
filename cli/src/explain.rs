//! Explains a Service: the chain of facts from its label to its client's packets.
//!
//! Pure. Decisions are made by the code of controller and proxy (`controller::reconcile`, `rules`); this module orders them.

mod case;
mod client;
mod decision;
mod endpoints;
mod installation;
mod pods;
mod problems;
mod proxy;
mod service;
mod traffic;

pub use client::attachments;
pub use decision::ServiceDecision;
pub use installation::{condition, leader, of_cluster};
pub use proxy::{pod_condition, why_not_ready};

use crate::chain::{Chain, Link, State, Topic};
use crate::facts::{Facts, ReadError};
use crate::situations::{Cause, Values};
use api::ObjectName;
use case::Case;
use k8s_openapi::api::core::v1::Service;

/// Explanation of a Service.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub service: ObjectName,
    /// The client of `--from`.
    pub from: Option<ObjectName>,
    pub chain: Chain,
    /// Failed reads.
    pub read_errors: Vec<ReadError>,
}

impl Explanation {
    /// Returns the cause of the broken link.
    pub fn cause(&self) -> Option<Cause> {
        self.chain.broken().and_then(|link| link.cause)
    }

    /// Whether no link is broken.
    pub fn is_well(&self) -> bool {
        self.chain.state() != State::Broken
    }
}

/// Explains one Service.
pub fn explain(facts: &Facts, key: &ObjectName) -> Explanation {
    let mut chain = Chain::default();
    let found = facts.services.as_ref().map(|services| services.first());
    let missing = || Cause::ServiceNotFound.broken(&Values::default().and("service", key.to_string()));
    match found {
        Err(read_error) => {
            chain.push([Link::unknown(Topic::Service, read_error.to_string())]);
        }
        Ok(None) => {
            chain.push([missing()]);
        }
        Ok(Some(service)) => follow(&mut chain, facts, service),
    }
    Explanation {
        service: key.clone(),
        from: facts.client.as_ref().map(|client| client.key.clone()),
        chain,
        read_errors: facts.read_errors(),
    }
}

type Step = fn(&Case<'_>) -> Vec<Link>;

fn follow(chain: &mut Chain, facts: &Facts, service: &Service) {
    let (exists, label) = service::label(service);
    if !chain.push([exists, label]) {
        return;
    }
    let case = Case::new(facts, service);
    let steps: [Step; 8] = [
        service::annotation,
        service::network,
        installation::installation,
        installation::controller,
        pods::pods,
        endpoints::slices,
        client::client,
        proxy::proxy,
    ];
    for step in steps {
        if !chain.push(step(&case)) {
            return;
        }
    }
    chain.push(traffic::rules(&case));
}
