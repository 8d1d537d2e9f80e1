//! Optional APIs of the platform: OpenShift's configuration and console, OLM.

pub mod console;
pub mod olm;
pub mod openshift;
