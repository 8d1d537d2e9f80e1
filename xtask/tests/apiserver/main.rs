//! The Helm chart, by the real Helm on a real kube-apiserver: install, upgrade, uninstall, and what it rejects.

mod chart;
mod helm;
mod lifecycle;
