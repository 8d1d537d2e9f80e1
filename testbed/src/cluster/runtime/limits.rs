//! Limits of this machine that are lower than the container runtimes expect.
//!
//! Writes: nothing.

use std::fs;
use std::path::Path;

/// Missing capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// CAP_SYS_RESOURCE: no process may lower an `oom_score_adj`, as the spec of every sandbox asks. runc: "failed to
    /// update /proc/self/oom_score_adj".
    pub(super) oom_score: bool,
    /// The kernel has the hugetlb controller but no version 1 hierarchy has it. CRI-O goes by /proc/cgroups and asks for
    /// limits; runc: "cannot set hugetlb limit: container could not join or create cgroup".
    pub(super) hugetlb: bool,
}

impl Missing {
    pub(super) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            oom_score: !has_sys_resource(&status),
            hugetlb: !version_2 && !Path::new("/sys/fs/cgroup/hugetlb").exists(),
        }
    }

    /// The fields of an OCI spec that cannot be honoured, as jq writes them.
    pub(super) fn fields(self) -> Vec<&'static str> {
        let Self { oom_score, hugetlb } = self;
        let fields = [
            (oom_score, ".process.oomScoreAdj"),
            (hugetlb, ".linux.resources.hugepageLimits"),
        ];
        fields
            .into_iter()
            .filter_map(|(missing, field)| missing.then_some(field))
            .collect()
    }
}

/// capabilities(7): CAP_SYS_RESOURCE is bit 24.
fn has_sys_resource(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << 24) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_one_bit() {
        assert!(has_sys_resource("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_resource("Name:\tx\nCapEff:\t000001fffeffffff\n"));
        assert!(!has_sys_resource(""));
    }

    #[test]
    fn only_what_is_missing_is_dropped() {
        assert!(Missing::default().fields().is_empty());
        let both = Missing {
            oom_score: true,
            hugetlb: true,
        };
        assert_eq!(
            both.fields(),
            [".process.oomScoreAdj", ".linux.resources.hugepageLimits"]
        );
    }
}
