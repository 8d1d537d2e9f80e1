//! Bounds of the cost of proxies for an API server, as ratios to kube-proxies in the same run of the short form. Pure.

use super::table::{Cost, Costs, Row, Table};
use Of::{Bytes, Events};
use Than::{Kube, OneList, OneWatcher};

/// A bounded value. CPU is only printed: of a short run it is a few ticks of a clock.
#[derive(Clone, Copy, Debug)]
enum Of {
    Events,
    Bytes,
}

/// Reference of the ratio.
#[derive(Clone, Copy, Debug)]
enum Than {
    /// The same of kube-proxy.
    Kube,
    /// Events of one watcher: kube-proxy does not watch pods.
    OneWatcher,
    /// Slices of one network: a node that gains the network has to read them.
    OneList,
}

/// A kube-proxy is sent protobuf, and compressed lists; ours are JSON, of which three to six times as much is written for the same objects.
const BOUNDS: [(Row, Of, Than, f64); 6] = [
    // The network is attached on a fifth of the nodes.
    (Row::Endpoint, Events, Kube, 0.25),
    (Row::Endpoint, Bytes, Kube, 1.0),
    (Row::Heartbeat, Events, Kube, 1.0),
    (Row::Pod, Events, OneWatcher, 3.0),
    (Row::PodOfNewNetwork, Events, OneList, 1.5),
    (Row::Restart, Bytes, Kube, 3.0),
];

impl Table {
    /// Returns exceeded bounds, one per line.
    pub(crate) fn exceeded(&self) -> Vec<String> {
        BOUNDS
            .into_iter()
            .filter_map(|(wanted, of, than, bound)| {
                let (row, costs) = self.rows.iter().find(|(row, _)| *row == wanted)?;
                let ratio = self.ratio(costs, of, than);
                // A change that falls between two measurements is no fault.
                let exceeds = ratio > bound * 1.05;
                exceeds
                    .then(|| format!("{row:?}: {of:?} are {ratio:.2} times those of {than:?}, bound {bound}"))
            })
            .collect()
    }

    fn ratio(&self, Costs { ours, kube }: &Costs, of: Of, than: Than) -> f64 {
        let of = |cost: &Cost| match of {
            Events => cost.events,
            Bytes => cost.bytes,
        };
        match than {
            Kube => of(ours) / of(kube),
            OneWatcher => of(ours),
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            OneList => of(ours) / (self.size.services as f64 / self.size.networks as f64),
        }
    }
}
