//! Why a Service works or not: the chain of facts from its label to its client's packets.
//!
//! Pure. What decides is the controller's and the proxy's own code (`controller::reconcile`, `rules`); here its answers are put in order.

mod case;
mod client;
mod decided;
mod endpoints;
mod installation;
mod pods;
mod problems;
mod proxy;
mod service;
mod traffic;

pub use client::attachments;
pub use decided::Decided;
pub use installation::{condition, leader, of_cluster};
pub use proxy::{pod_condition, why_not_ready};

use crate::chain::{Chain, Link, State, Topic};
use crate::facts::{Facts, Lack};
use crate::situations::{Cause, Values};
use case::Case;
use controller::objects::ObjectKey;
use k8s_openapi::api::core::v1::Service;

/// The answer.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The Service.
    pub service: ObjectKey,
    /// The client whose view was asked for.
    pub from: Option<ObjectKey>,
    /// The chain.
    pub chain: Chain,
    /// What could not be read.
    pub lacks: Vec<Lack>,
}

impl Explanation {
    /// The first broken link's cause.
    pub fn cause(&self) -> Option<Cause> {
        self.chain.broken().and_then(|link| link.cause)
    }

    /// Whether nothing is broken.
    pub fn is_well(&self) -> bool {
        self.chain.state() != State::Broken
    }
}

/// Explains one Service.
pub fn explain(facts: &Facts, key: &ObjectKey) -> Explanation {
    let mut chain = Chain::default();
    let found = facts.services.as_ref().map(|services| services.first());
    let missing = || Cause::ServiceNotFound.broken(&Values::default().and("service", key.to_string()));
    match found {
        Err(lack) => {
            chain.push([Link::unknown(Topic::Service, lack.to_string())]);
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
        lacks: facts.lacks(),
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
