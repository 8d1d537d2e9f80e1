//! Optional APIs of the platform: OpenShift's configuration and console, OLM.

pub(crate) mod console;
pub(crate) mod olm;
pub(crate) mod openshift;
