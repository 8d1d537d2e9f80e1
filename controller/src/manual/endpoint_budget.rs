//! Budget for the endpoints of manual slices.
//!
//! Pure. A slice beyond the budget stays, so that it can be reported, without its excess endpoints.

use super::{MAX_ENDPOINTS, MAX_ENDPOINTS_OF_SERVICE, ManualSlice, is_orphaned};
use crate::objects::service_key;
use api::ObjectName;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeSet, HashMap};

/// Endpoints kept, per Service and in total.
#[derive(Debug, Default)]
pub struct EndpointBudget {
    slices: HashMap<ObjectName, (ObjectName, usize)>,
    by_service: HashMap<ObjectName, usize>,
    all: usize,
    /// Slices of which endpoints were left out.
    truncated: BTreeSet<ObjectName>,
    /// During a list: the number that each Service had before. It is reserved for that Service, in any order of the list.
    reserved: HashMap<ObjectName, usize>,
}

impl EndpointBudget {
    /// A list begins.
    pub fn begin(&mut self) {
        let reserved = if self.reserved.is_empty() {
            std::mem::take(&mut self.by_service)
        } else {
            // The list before did not end.
            std::mem::take(&mut self.reserved)
        };
        *self = Self {
            reserved,
            ..Self::default()
        };
    }

    /// The list is complete.
    pub fn end(&mut self) {
        self.reserved.clear();
    }

    /// Takes a slice in, up to the budget of its Service and of all.
    pub fn admit(&mut self, mut slice: EndpointSlice) -> ManualSlice {
        let key = ObjectName::of(&slice);
        self.forget(&key);
        let service = service_key(&slice).unwrap_or_default();
        let is_copied = !is_orphaned(&slice) && slice.address_type != "FQDN";
        if !is_copied {
            // Only named: it takes no room.
            slice.endpoints = Vec::new();
        }
        let room = self.room(&service);
        let left_out = slice.endpoints.len().saturating_sub(room);
        slice.endpoints.truncate(room);
        slice.endpoints.shrink_to_fit();
        let kept = slice.endpoints.len();
        if left_out > 0 {
            self.truncated.insert(key.clone());
        }
        *self.by_service.entry(service.clone()).or_default() += kept;
        self.all += kept;
        self.slices.insert(key, (service, kept));
        ManualSlice { slice, left_out }
    }

    /// Removes a slice.
    pub fn forget(&mut self, key: &ObjectName) {
        self.truncated.remove(key);
        let Some((service, kept)) = self.slices.remove(key) else {
            return;
        };
        self.all -= kept;
        if let Some(used) = self.by_service.get_mut(&service) {
            *used -= kept;
            if *used == 0 {
                self.by_service.remove(&service);
            }
        }
    }

    /// Returns true if an endpoint that was left out would be kept now; a new list adds it.
    pub fn has_room_again(&self) -> bool {
        let services = self.truncated.iter().filter_map(|key| self.slices.get(key));
        services.into_iter().any(|(service, _)| self.room(service) > 0)
    }

    fn room(&self, service: &ObjectName) -> usize {
        let used = self.by_service.get(service).copied().unwrap_or_default();
        let own = MAX_ENDPOINTS_OF_SERVICE.saturating_sub(used);
        let others = self.reserved.iter().filter(|(other, _)| *other != service);
        let others = others.map(|(other, had)| {
            let has = self.by_service.get(other).copied().unwrap_or_default();
            had.saturating_sub(has)
        });
        own.min(MAX_ENDPOINTS.saturating_sub(self.all + others.sum::<usize>()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ENDPOINT_SLICE_CONTROLLER;
    use super::*;
    use api::names::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
    use serde_json::json;

    fn slice(name: &str, service: &str, endpoints: usize) -> EndpointSlice {
        let endpoints = vec![json!({"addresses": ["10.1.0.2"]}); endpoints];
        serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"name": name, "namespace": "shop", "labels": {SERVICE_NAME_LABEL: service}}}))
        .unwrap()
    }

    fn kept(slice: &ManualSlice) -> (usize, usize) {
        (slice.slice.endpoints.len(), slice.left_out)
    }

    #[test]
    fn a_service_has_its_budget_and_what_is_beyond_it_is_counted() {
        let mut budget = EndpointBudget::default();
        assert_eq!(kept(&budget.admit(slice("a", "db", 700))), (700, 0));
        assert_eq!(kept(&budget.admit(slice("b", "db", 700))), (300, 400));
        assert_eq!(
            kept(&budget.admit(slice("c", "web", 10))),
            (10, 0),
            "another Service"
        );
        assert!(!budget.has_room_again());
        assert_eq!(
            kept(&budget.admit(slice("a", "db", 100))),
            (100, 0),
            "an update counts once"
        );
        assert!(budget.has_room_again());
        budget.forget(&ObjectName::new("shop", "b"));
        assert!(!budget.has_room_again(), "nothing is left out any more");
    }

    #[test]
    fn a_list_keeps_the_budget_that_a_service_had_before() {
        let mut budget = EndpointBudget::default();
        budget.admit(slice("old", "old", 7));
        budget.begin();
        // A list that breaks off.
        budget.admit(slice("a0", "a0", 1));
        budget.begin();
        for n in 0..=MAX_ENDPOINTS / MAX_ENDPOINTS_OF_SERVICE {
            let name = format!("a{n}");
            budget.admit(slice(&name, &name, MAX_ENDPOINTS_OF_SERVICE));
        }
        assert_eq!(kept(&budget.admit(slice("old", "old", 8))), (7, 1));
        budget.end();
        assert_eq!(kept(&budget.admit(slice("late", "late", 1))), (0, 1));
    }

    #[test]
    fn ignored_slices_use_no_budget() {
        let mut budget = EndpointBudget::default();
        let mut orphaned = slice("web-abcde", "web", MAX_ENDPOINTS_OF_SERVICE);
        let by = (MANAGED_BY_LABEL.to_owned(), ENDPOINT_SLICE_CONTROLLER.to_owned());
        orphaned.metadata.labels.as_mut().unwrap().extend([by]);
        let mut names = slice("names", "web", 10);
        "FQDN".clone_into(&mut names.address_type);
        assert_eq!(kept(&budget.admit(orphaned)), (0, 0));
        assert_eq!(kept(&budget.admit(names)), (0, 0));
        assert_eq!(kept(&budget.admit(slice("own", "web", 10))), (10, 0));
    }

    #[test]
    fn all_services_together_have_a_budget() {
        let mut budget = EndpointBudget::default();
        let full = MAX_ENDPOINTS / MAX_ENDPOINTS_OF_SERVICE;
        for n in 0..full {
            let name = format!("s{n}");
            let admitted = budget.admit(slice(&name, &name, MAX_ENDPOINTS_OF_SERVICE));
            assert_eq!(kept(&admitted), (MAX_ENDPOINTS_OF_SERVICE, 0));
        }
        assert_eq!(kept(&budget.admit(slice("late", "late", 3))), (0, 3));
        budget.admit(slice("s0", "moved", 5));
        assert!(budget.has_room_again());
        assert_eq!(kept(&budget.admit(slice("late", "late", 3))), (3, 0));
    }
}
