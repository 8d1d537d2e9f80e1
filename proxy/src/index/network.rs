//! `Network`: the rules of one network, planned per Service, so that the cost of a change follows its size.
//!
//! Pure. When several Services claim one ClusterIP the first by name has it; the others are reported with the reason.

use api::ObjectName;
use rules::{NetworkRules, NotServed, ServicePlan, Unserved, VipRules};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Rules that one Service requests.
type Asked = BTreeMap<IpAddr, Arc<VipRules>>;

/// Services of one network.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// Rules of every pod on the network.
    pub(super) rules: Arc<NetworkRules>,
    wanted: BTreeMap<ObjectName, Asked>,
    claims: BTreeSet<(IpAddr, ObjectName)>,
    /// ClusterIPs that several Services claim.
    contested: BTreeSet<IpAddr>,
    /// Parts of Services that are not served; only Services that have any.
    unserved: BTreeMap<ObjectName, Vec<Unserved>>,
}

impl Network {
    /// Returns true when the network has no Service.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Sets the plan of a Service, `None` when it left the network; returns true when the rules changed.
    pub(super) fn set(&mut self, service: &ObjectName, plan: Option<ServicePlan>) -> bool {
        let before = self.wanted.remove(service).unwrap_or_default();
        // An endpoint that stays keeps the place in which pods have it.
        let plan = plan.map(|plan| plan.placed_after(&before));
        self.unserved.remove(service);
        for vip in before.keys() {
            self.claims.remove(&(*vip, service.clone()));
        }
        let mut touched: BTreeSet<IpAddr> = before.into_keys().collect();
        if let Some(ServicePlan { vips, unserved }) = plan {
            for vip in vips.keys() {
                self.claims.insert((*vip, service.clone()));
            }
            touched.extend(vips.keys());
            self.wanted.insert(service.clone(), vips);
            if !unserved.is_empty() {
                self.unserved.insert(service.clone(), unserved);
            }
        }
        let mut differs = false;
        for vip in touched {
            differs |= self.assign(vip);
        }
        differs
    }

    /// Adopts places of endpoints: see [`NetworkRules::adopt`].
    pub(super) fn adopt(&mut self, held: &mut Arc<NetworkRules>) {
        let mut rules = NetworkRules::clone(&self.rules);
        let adopted = rules.adopt(held);
        if !adopted.is_empty() {
            self.rules = Arc::new(rules);
        }
        for (vip, rules) in adopted {
            if let Some(asked) = self.wanted.get_mut(&rules.service) {
                asked.insert(vip, rules);
            }
        }
        if *self.rules == **held {
            *held = Arc::clone(&self.rules);
        }
    }

    /// Returns the parts of Services that are not served.
    pub(super) fn unserved(&self) -> impl Iterator<Item = Unserved> {
        let contested = self.contested.iter().flat_map(|vip| {
            let mut claimants = self.claimants(*vip);
            let keeper = claimants.next();
            claimants
                .zip(std::iter::repeat(keeper))
                .filter_map(|(service, keeper)| {
                    Some(Unserved::Service {
                        service: service.clone(),
                        why: NotServed::VipTaken {
                            vip: *vip,
                            other: keeper?.clone(),
                        },
                    })
                })
        });
        self.unserved.values().flatten().cloned().chain(contested)
    }

    /// Returns the Services that claim a ClusterIP, by name.
    fn claimants(&self, vip: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let claims = self.claims.range((vip, ObjectName::FIRST)..);
        claims
            .take_while(move |(claimed, _)| *claimed == vip)
            .map(|(_, service)| service)
    }

    /// Assigns a ClusterIP to the first claimant; returns true when its rules changed.
    fn assign(&mut self, vip: IpAddr) -> bool {
        let (keeper, is_contested) = {
            let mut claimants = self.claimants(vip);
            (claimants.next().cloned(), claimants.next().is_some())
        };
        if is_contested {
            self.contested.insert(vip);
        } else {
            self.contested.remove(&vip);
        }
        let wanted = keeper.and_then(|keeper| self.wanted.get(&keeper)?.get(&vip));
        if self.rules.vips().get(&vip) == wanted {
            return false;
        }
        let wanted = wanted.cloned();
        // Pods hold the rules as they were.
        let network = Arc::make_mut(&mut self.rules);
        match wanted {
            Some(rules) => network.insert(vip, rules),
            None => network.remove(&vip),
        }
        true
    }
}
