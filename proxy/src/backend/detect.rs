//! Detection of the backend of a node.
//!
//! A backend is supported when it can write the rules of a full Service in a network namespace. The probe uses a namespace of its own,
//! which is deleted with it. nftables is first: a change takes microseconds, and the cost of a new flow does not depend on the number of
//! Services. The iptables programs follow, the nft variant before the legacy one.

use super::iptables::{Iptables, Variant};
use super::nftables::Nftables;
use super::{Backend, Error, PerItem};
use crate::args::BackendChoice;
use crate::netns::{self, Netns};
use process::error_chain;
use rules::{Delta, KernelState};
use std::sync::Arc;
use tracing::{info, warn};

/// Backend of this node. It also removes the rules of other backends in a pod once its own rules are complete.
struct Chosen {
    backend: Arc<dyn Backend>,
    others: Vec<Arc<dyn Backend>>,
    supports_affinity: bool,
}

impl Backend for Chosen {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn supports_affinity(&self) -> bool {
        self.supports_affinity
    }

    fn supports_host_netns(&self) -> bool {
        self.backend.supports_host_netns()
    }

    fn verifies_generation(&self) -> bool {
        self.backend.verifies_generation()
    }

    fn buffers_whole_ruleset(&self) -> bool {
        self.backend.buffers_whole_ruleset()
    }

    fn memory_per_item(&self) -> PerItem {
        self.backend.memory_per_item()
    }

    fn is_present(&self) -> Result<bool, Error> {
        self.backend.is_present()
    }

    fn dump(&self) -> Result<KernelState, Error> {
        self.backend.dump()
    }

    fn reports_ruleset_changes(&self) -> bool {
        self.backend.reports_ruleset_changes()
    }

    fn fingerprint(&self) -> Option<u64> {
        self.backend.fingerprint()
    }

    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.backend.reject(delta)
    }

    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.backend.translate(delta)
    }

    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.backend.unreject(delta)
    }

    fn remove_translation(&self) -> Result<(), Error> {
        self.backend.remove_translation()
    }

    fn remove_rejection(&self) -> Result<(), Error> {
        self.backend.remove_rejection()
    }

    fn replace_others(&self) -> Result<(), Error> {
        let is_home = netns::is_home();
        for other in self
            .others
            .iter()
            .filter(|other| !is_home || other.supports_host_netns())
        {
            if other.is_present()? {
                info!(
                    backend = self.name(),
                    other = other.name(),
                    "Replacing rules of another backend"
                );
                other.remove_translation()?;
                other.remove_rejection()?;
            }
        }
        Ok(())
    }
}

/// Backend that can be probed.
trait Probe: Backend {
    /// Writes the rules of a Service, in a scratch namespace.
    fn probe(&self) -> Result<(), Error>;

    /// Writes the rules of session affinity, in another scratch namespace.
    fn probe_affinity(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl Probe for Nftables {
    fn probe(&self) -> Result<(), Error> {
        Self::probe()
    }
}

impl Probe for Iptables {
    fn probe(&self) -> Result<(), Error> {
        Self::probe(*self)
    }

    fn probe_affinity(&self) -> Result<(), Error> {
        Self::probe_affinity(*self)
    }
}

/// Returns the first supported backend that `choice` allows.
pub fn choose(choice: BackendChoice) -> Result<Arc<dyn Backend>, Error> {
    let nftables: [Arc<dyn Probe>; 1] = [Arc::new(Nftables)];
    let iptables = Variant::ALL.map(|variant| Arc::new(Iptables::new(variant)) as Arc<dyn Probe>);
    let allowed: Vec<Arc<dyn Probe>> = match choice {
        BackendChoice::Auto => nftables.into_iter().chain(iptables).collect(),
        BackendChoice::NfTables => nftables.into_iter().collect(),
        BackendChoice::IpTables => iptables.into_iter().collect(),
    };
    pick(allowed, |probe| in_scratch_namespace(probe))
}

/// Returns the first of `allowed` whose probe succeeds.
fn pick(
    allowed: Vec<Arc<dyn Probe>>,
    attempt: impl Fn(&(dyn Fn() -> Result<(), Error> + Sync)) -> Result<(), String>,
) -> Result<Arc<dyn Backend>, Error> {
    let mut failures = Vec::new();
    for backend in allowed {
        match attempt(&|| backend.probe()) {
            Ok(()) => {
                let why = match failures.as_slice() {
                    [] => "first supported".to_owned(),
                    failures => format!("preferred backends are not supported: {}", failures.join("; ")),
                };
                info!(backend = backend.name(), why, "Selected backend");
                let affinity = attempt(&|| backend.probe_affinity());
                if let Err(why) = &affinity {
                    warn!(
                        backend = backend.name(),
                        why, "Services with sessionAffinity are served without it on this node"
                    );
                }
                return Ok(chosen(backend, affinity.is_ok()));
            }
            Err(error) => failures.push(format!("{}: {error}", backend.name())),
        }
    }
    Err(Error::None(failures.join("; ")))
}

/// Wraps a backend so that it replaces the rules of others.
pub fn taking_over(backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    chosen(backend, true)
}

fn chosen(backend: Arc<dyn Backend>, supports_affinity: bool) -> Arc<dyn Backend> {
    let others = all().into_iter().filter(|other| other.name() != backend.name());
    Arc::new(Chosen {
        others: others.collect(),
        backend,
        supports_affinity,
    })
}

/// Returns every backend, supported or not.
pub fn all() -> Vec<Arc<dyn Backend>> {
    let mut all: Vec<Arc<dyn Backend>> = vec![Arc::new(Nftables)];
    all.extend(Variant::ALL.map(|variant| Arc::new(Iptables::new(variant)) as Arc<dyn Backend>));
    all
}

fn in_scratch_namespace(probe: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), String> {
    match Netns::scratch(probe) {
        Ok(result) => result.map_err(|error| error_chain(&error)),
        Err(error @ netns::Error::Enter(_)) => Err(format!(
            "{}; the proxy needs CAP_SYS_ADMIN and CAP_NET_ADMIN",
            error_chain(&error)
        )),
        Err(error) => Err(error_chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Backend that writes nothing; its support is given.
    struct Fake {
        name: &'static str,
        works: bool,
        keeps: bool,
    }

    fn result(works: bool) -> Result<(), Error> {
        works
            .then_some(())
            .ok_or_else(|| Error::None("it lacks".to_owned()))
    }

    impl Probe for Fake {
        fn probe(&self) -> Result<(), Error> {
            result(self.works)
        }

        fn probe_affinity(&self) -> Result<(), Error> {
            result(self.keeps)
        }
    }

    impl Backend for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        fn is_present(&self) -> Result<bool, Error> {
            Ok(false)
        }

        fn dump(&self) -> Result<KernelState, Error> {
            Ok(KernelState::default())
        }

        fn reject(&self, _: &Delta<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn translate(&self, _: &Delta<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn unreject(&self, _: &Delta<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn remove_translation(&self) -> Result<(), Error> {
            Ok(())
        }

        fn remove_rejection(&self) -> Result<(), Error> {
            Ok(())
        }
    }

    fn picked(fakes: [(&'static str, bool, bool); 3]) -> Result<(&'static str, bool), String> {
        let fakes = fakes.map(|(name, works, keeps)| Arc::new(Fake { name, works, keeps }) as Arc<dyn Probe>);
        let attempt =
            |trial: &(dyn Fn() -> Result<(), Error> + Sync)| trial().map_err(|error| error_chain(&error));
        let backend = pick(fakes.into(), attempt).map_err(|error| error.to_string())?;
        Ok((backend.name(), backend.supports_affinity()))
    }

    #[test]
    fn the_first_supported_backend_is_selected() {
        assert_eq!(
            picked([("a", true, true), ("b", true, true), ("c", true, true)]),
            Ok(("a", true))
        );
        assert_eq!(
            picked([("a", false, true), ("b", true, true), ("c", true, true)]),
            Ok(("b", true))
        );
        assert_eq!(
            picked([("a", false, true), ("b", false, true), ("c", true, true)]),
            Ok(("c", true))
        );
    }

    #[test]
    fn an_earlier_backend_without_affinity_is_preferred_to_a_later_one() {
        assert_eq!(
            picked([("a", true, false), ("b", true, true), ("c", true, true)]),
            Ok(("a", false))
        );
    }

    #[test]
    fn an_unsupported_node_reports_the_error_of_each_backend() {
        let why = picked([("a", false, true), ("b", false, true), ("c", false, true)]).unwrap_err();
        for name in ["a", "b", "c"] {
            assert!(
                why.contains(&format!("{name}: ")) && why.contains("it lacks"),
                "{why}"
            );
        }
    }
}
