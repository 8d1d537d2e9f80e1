//! Ids and sampling of the trace of a change.
//!
//! Pure. Equal changes have equal ids in every process.

use k8s_openapi::jiff::Timestamp;
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
use sha2::{Digest, Sha256};

/// Ids of the trace of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeIds {
    pub(super) trace: TraceId,
    pub(super) root: SpanId,
}

impl ChangeIds {
    /// Returns the ids for a change that was triggered at this time: those of SHA-256 of `UID/TIME`, with the time in the format of the
    /// annotation. The first 16 bytes are the trace id, the next 8 the id of the controller's span, which is the parent of all others.
    pub fn new(service_uid: &str, triggered: Timestamp) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(service_uid)
            .chain_update("/")
            .chain_update(triggered.to_string())
            .finalize()
            .into();
        let (mut trace, mut root) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&digest[..16]);
        root.copy_from_slice(&digest[16..24]);
        Self {
            trace: TraceId::from_bytes(trace),
            root: SpanId::from_bytes(root),
        }
    }

    /// Returns the trace id: 32 hex digits.
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    /// Returns true if the trace is sampled at this rate: by its id alone, as OpenTelemetry's `TraceIdRatioBased` has it, so that all
    /// processes decide alike.
    pub(super) fn are_sampled(&self, rate_per_million: u32) -> bool {
        let sampler = Sampler::TraceIdRatioBased(f64::from(rate_per_million) / 1_000_000.0);
        let decided = sampler.should_sample(None, self.trace, "", &SpanKind::Internal, &[], &[]);
        decided.decision == SamplingDecision::RecordAndSample
    }
}
