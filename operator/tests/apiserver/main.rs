//! The operator's binary on a real apiserver with a real controller-manager, installed from `config/` by kubectl.
//!
//! What is not real: the nodes. `bed::hollow` stands in for scheduler and kubelet: it binds pods and says that they are Ready, or
//! not, as a test asks.

mod admission;
mod availability;
mod bed;
mod causes;
mod crash;
mod crd;
mod flood;
mod install;
mod leaving;
mod openshift;
mod removal;
mod rights;
mod trouble;
mod upgrade;
mod walk;
