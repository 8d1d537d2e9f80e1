//! Applies and removes rules in a pod as the driver does.

use super::matrix::BackendKind;
use super::testbed::Pod;
use proxy::backend::KnownRules;
use proxy::netns::apply::{Applied, Error, Wanted, apply, remove};
use rules::PodRules;

impl Pod {
    pub(crate) fn apply(&self, kind: BackendKind, held: &KnownRules<PodRules>, rules: &PodRules) -> Applied {
        self.try_apply(kind, held, rules).unwrap()
    }

    pub(crate) fn try_apply(
        &self,
        kind: BackendKind,
        held: &KnownRules<PodRules>,
        rules: &PodRules,
    ) -> Result<Applied, Error> {
        let addresses = self.status.iter().flat_map(|status| &status.addresses);
        let wanted = Wanted {
            rules: rules.clone(),
            addresses: addresses.copied().collect(),
            foreign_routes: None,
        };
        self.run(|| apply(kind.backend().as_ref(), held, &wanted))
    }

    /// Cleans up as the `cleanup` subcommand does in each pod.
    pub(crate) fn cleanup(&self) {
        let backends = BackendKind::ALL.map(BackendKind::backend);
        self.run(|| remove(&backends.each_ref().map(AsRef::as_ref)))
            .unwrap();
    }
}
