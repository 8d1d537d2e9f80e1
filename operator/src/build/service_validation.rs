//! Admission policies that report to the author of a Service or pod at once what the controller would report later.
//!
//! Pure. Whether they reject and which networks are open to all depends on the configuration; the rest is in the manifests.

use crate::operands::Operands;
use crate::validate::{Networks, ValidatedConfig};
use api::config::ServiceValidation;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Variable,
};
use kube::ResourceExt;

/// Name of the policy with what the controller rejects; the others are about what it serves in part.
const REJECTIONS: &str = "multus-service-services";

/// Adds the policies, unless they are off.
pub(super) fn add(operands: &mut Operands, mut policies: Operands, config: &ValidatedConfig) {
    if config.service_validation == ServiceValidation::Off {
        return;
    }
    for policy in &mut policies.admission_policies {
        set_networks(policy, &config.networks);
    }
    if config.service_validation == ServiceValidation::Deny {
        let bindings = policies.admission_policy_bindings.iter_mut();
        bindings
            .filter(|binding| binding.name_any() == REJECTIONS)
            .for_each(deny);
    }
    operands
        .admission_policies
        .append(&mut policies.admission_policies);
    operands
        .admission_policy_bindings
        .append(&mut policies.admission_policy_bindings);
}

fn deny(binding: &mut ValidatingAdmissionPolicyBinding) {
    let spec = binding.spec.get_or_insert_default();
    spec.validation_actions = Some(vec!["Deny".to_owned()]);
}

/// Sets the variables of the manifest that name the networks of other namespaces.
fn set_networks(policy: &mut ValidatingAdmissionPolicy, networks: &Networks) {
    let spec = policy.spec.get_or_insert_default();
    for Variable { name, expression } in spec.variables.iter_mut().flatten() {
        match name.as_str() {
            "isIsolated" => *expression = networks.isolated.to_string(),
            "globalNamespaces" => *expression = list(networks.global_namespaces.iter()),
            _ => {}
        }
    }
}

/// A list of texts in CEL. Names of namespaces need no escapes.
fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(", "))
}
