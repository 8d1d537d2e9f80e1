//! One attempt to bring one pod's namespace to what is wanted: find the sandbox, enter, apply.
//!
//! Writes: through `apply`.

use crate::apply::{self, Applied, Wanted, apply};
use crate::backend::Held;
use crate::index::LocalPod;
use crate::netns::{self, Netns};
use crate::sandbox::{self, Sandbox};
use crate::sync::Context;
use crate::tampering::{NamespaceId, generation, id_of, is_later};
use rules::PodRules;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

/// A namespace that hangs gives its worker back after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a pod's rules are, and what is there.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// `None`: the runtime has to be asked.
    pub(super) sandbox: Option<Sandbox>,
    /// The sandbox that `held` is about.
    id: Option<String>,
    pub(super) held: Held<PodRules>,
    /// What the node calls the namespace, if it can be listened to.
    pub(super) nsid: Option<NamespaceId>,
    /// The generation of the nftables rules after the last write.
    generation: Option<u32>,
}

impl Place {
    /// The sandbox it was last.
    pub(super) fn sandbox_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether this process never wrote here.
    pub(super) fn is_untouched(&self) -> bool {
        self.id.is_none()
    }

    /// Takes note that somebody brought the rules to this generation; says whether it was not us.
    pub(super) fn is_tampered_with(&mut self, generation: u32) -> bool {
        let by_others = self.generation.is_none_or(|ours| is_later(generation, ours));
        if by_others {
            self.held = Held::Unknown;
        }
        by_others
    }

    /// A recreated sandbox has another namespace, with nothing of ours.
    fn settle(&mut self, sandbox: &Sandbox, is_earlier: bool) {
        if self.id.as_ref() != Some(&sandbox.id) {
            self.id = Some(sandbox.id.clone());
            self.held = if is_earlier { Held::Unknown } else { Held::Nothing };
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The thread panicked; the namespace may hold anything.
    #[error("the work in the network namespace ended without a result")]
    Lost,
}

impl Error {
    /// What the container runtime did not do, if it is at fault.
    pub(super) fn of_the_runtime(&self) -> Option<String> {
        match self {
            Self::Sandbox(error @ (sandbox::Error::NoRuntime(_) | sandbox::Error::Runtime(_))) => {
                Some(error.to_string())
            }
            _ => None,
        }
    }

    /// Whether it only says that the pod has no namespace, now.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Sandbox(sandbox::Error::NotReady) | Self::Netns(netns::Error::Gone { .. })
        )
    }
}

/// Makes the attempt. `place` says what is known afterwards, also after a failure.
pub(super) async fn attempt(
    context: &Context,
    pod: &LocalPod,
    rules: PodRules,
    place: &mut Place,
) -> Result<Applied, Error> {
    let permit = Arc::clone(&context.limit)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let sandbox = match place.sandbox.take() {
        Some(sandbox) => sandbox,
        None => context.sandboxes.of_pod(&pod.runtime_uid).await?,
    };
    place.settle(&sandbox, context.earlier.contains(&sandbox.id));
    let netns = Netns::open(&sandbox.netns)?;
    place.nsid = id_of(&netns).ok();
    // Until it succeeds nothing is known.
    let held = std::mem::take(&mut place.held);
    let wanted = Wanted {
        rules,
        addresses: pod.addresses.clone(),
    };
    let began = Instant::now();
    let (applied, generation) = enter(context, pod, permit, netns, held, wanted).await?;
    place.generation = generation;
    context
        .telling
        .metrics
        .applied(context.backend.name(), began.elapsed());
    place.held = Held::Exactly(applied.rules.clone());
    place.sandbox = Some(sandbox);
    Ok(applied)
}

async fn enter(
    context: &Context,
    pod: &LocalPod,
    permit: OwnedSemaphorePermit,
    netns: Netns,
    held: Held<PodRules>,
    wanted: Wanted,
) -> Result<(Applied, Option<u32>), Error> {
    let backend = Arc::clone(&context.backend);
    let work = move || apply(backend.as_ref(), &held, &wanted).map(|applied| (applied, generation()));
    let mut receiver = netns.spawn(work)?;
    let in_time = tokio::time::timeout(PATIENCE, &mut receiver).await;
    let result = if let Ok(result) = in_time {
        result
    } else {
        // The thread cannot be ended from outside. The pod waits for it; the other pods do not.
        warn!(pod = %pod.name, seconds = PATIENCE.as_secs(), "Work in the network namespace hangs");
        drop(permit);
        receiver.await
    };
    Ok(result.map_err(|_| Error::Lost)???)
}
