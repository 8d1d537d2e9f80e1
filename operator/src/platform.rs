//! Optional APIs of the platform: OpenShift's configuration and console, OLM; prometheus-operator.

pub(crate) mod console;
pub(crate) mod monitoring;
pub(crate) mod olm;
pub(crate) mod openshift;
