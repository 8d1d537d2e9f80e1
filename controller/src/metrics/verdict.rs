//! Whether a Service is served, as a label: a fixed set.
//!
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;

/// Status and reason of a Service's condition Accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is served.
    Accepted,
    /// It is served; some of its pods, ports or addresses are not.
    AcceptedWithWarnings,
    /// It has no selector, and no endpoints that its author wrote.
    NoSelector,
    /// It is not served.
    Rejected,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 4] = [
        Self::Accepted,
        Self::AcceptedWithWarnings,
        Self::NoSelector,
        Self::Rejected,
    ];

    /// Returns the verdict of a condition.
    pub(crate) fn of(condition: &Condition) -> Self {
        if condition.status != "True" {
            return Self::Rejected;
        }
        match condition.reason.as_str() {
            "AcceptedWithWarnings" => Self::AcceptedWithWarnings,
            "NoSelector" => Self::NoSelector,
            _ => Self::Accepted,
        }
    }

    pub(super) fn label(self) -> VerdictLabel {
        let verdict = match self {
            Self::Accepted => "Accepted",
            Self::AcceptedWithWarnings => "AcceptedWithWarnings",
            Self::NoSelector => "NoSelector",
            Self::Rejected => "Rejected",
        };
        VerdictLabel { verdict }
    }
}

/// Label `verdict`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerdictLabel {
    verdict: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_status::condition::{Source, accepted};
    use crate::validate::Acceptance;
    use api::NetworkRef;

    #[test]
    fn verdict_is_that_of_the_accepted_condition() {
        let network = NetworkRef::parse("net", "shop").unwrap();
        let of = |source| {
            let condition = accepted(&Acceptance::Manual(network.clone()), source, &[], Some(1));
            Verdict::of(&condition)
        };
        assert_eq!(of(Source::Slices), Verdict::Accepted);
        assert_eq!(of(Source::NoSlices), Verdict::NoSelector);
        let condition = accepted(&Acceptance::Rejected, Source::Pods, &[], Some(1));
        assert_eq!(Verdict::of(&condition), Verdict::Rejected);
    }
}
