//! The control plane: its machine and its certificates.
//!
//! Writes ([`prepare`]): the PKI folder, once in a cluster's life.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::layout::{self, Families, Machine, Node, kubeconfig, pki, state};
use super::machine::{Part, Plan};
use super::node::service_cidrs;
use super::options::Choices;
use crate::control_plane::{self, KUBERNETES_SERVICE_V6};
use crate::pki::{self as certificates, Ca, Credentials, Identity, Usage};
use crate::tools::{self, Tool, ToolDir};

// All in a network namespace of their own, so no other program can have them.
const ETCD: u16 = 2379;
const ETCD_PEER: u16 = 2380;
const CONTROLLER_MANAGER: u16 = 10257;
const SCHEDULER: u16 = 10259;

/// Multus and whereabouts ask the apiserver as this user.
const MULTUS_USER: &str = "multus-service-bed:multus";

/// The audit log.
pub(super) fn audit_log() -> std::path::PathBuf {
    layout::logs(Machine::Control).join("audit.log")
}

/// The control plane as a machine.
pub(super) fn plan(choices: &Choices, tools: &ToolDir) -> Result<Plan> {
    let cidrs = service_cidrs(choices.families);
    let command = |tool: &Tool, flags: Vec<String>| -> Result<Vec<String>> {
        Ok(std::iter::once(tools.main(tool)?.display().to_string())
            .chain(flags)
            .collect())
    };
    let apiserver = control_plane::apiserver(&control_plane::Apiserver {
        pki: &pki(),
        address: layout::CONTROL,
        port: layout::APISERVER_PORT,
        etcd: ETCD,
        service_cidrs: cidrs,
        audit_log: audit_log(),
    });
    let readyz = vec![
        tools.main(&tools::KUBECTL)?.display().to_string(),
        format!("--kubeconfig={}", kubeconfig().display()),
        "--request-timeout=2s".to_owned(),
        "get".to_owned(),
        "--raw=/readyz".to_owned(),
    ];
    let part = |name, command, ready| Part { name, command, ready };
    Ok(Plan {
        machine: Machine::Control,
        // It is the nodes' default gateway, to answer "unreachable".
        sysctls: forwarding(choices.families),
        path: Vec::new(),
        parts: vec![
            part(
                "etcd",
                command(
                    &tools::ETCD,
                    control_plane::etcd(&state().join("etcd"), ETCD, ETCD_PEER),
                )?,
                None,
            ),
            // The controller-manager exits when a bootstrap role is not there yet, so it waits.
            part(
                "kube-apiserver",
                command(&tools::KUBE_APISERVER, apiserver)?,
                Some(readyz),
            ),
            part(
                "kube-controller-manager",
                command(
                    &tools::KUBE_CONTROLLER_MANAGER,
                    control_plane::controller_manager(&pki(), CONTROLLER_MANAGER, cidrs),
                )?,
                None,
            ),
            part(
                "kube-scheduler",
                command(
                    &tools::KUBE_SCHEDULER,
                    control_plane::scheduler(&pki(), SCHEDULER),
                )?,
                None,
            ),
        ],
    })
}

fn forwarding(families: Families) -> Vec<(String, &'static str)> {
    let mut settings = vec![("ipv4/ip_forward".to_owned(), "1")];
    if families == Families::Dual {
        settings.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    settings
}

/// Makes certificates and kubeconfig files, unless they are there.
pub(super) fn prepare() -> Result<()> {
    let complete = pki();
    if complete.is_dir() {
        return Ok(());
    }
    let partial = complete.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o700))?;
    write(&partial)?;
    Ok(fs::rename(&partial, &complete)?)
}

fn write(dir: &Path) -> Result<()> {
    let ca = Ca::new("kubernetes-ca")?;
    let names = [layout::CONTROL, layout::CONTROL_V6, KUBERNETES_SERVICE_V6];
    for (name, content) in control_plane::pki_files(&ca, &names)? {
        fs::write(dir.join(name), content)?;
    }
    for (file, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kube-proxy", "system:kube-proxy", None),
        ("multus", MULTUS_USER, None),
    ] {
        write_kubeconfig(dir, &ca, file, user, &ca.issue(user, group, Usage::Client, &[])?)?;
    }
    for node in Node::ALL {
        let (name, user) = (node.to_string(), format!("system:node:{node}"));
        let names = [name.as_str(), &node.address(), &node.address_v6()];
        let identity = ca.issue(&user, Some("system:nodes"), Usage::Both, &names)?;
        write_kubeconfig(dir, &ca, &name, &user, &identity)?;
        fs::write(dir.join(format!("{name}.crt")), identity.certificate)?;
        fs::write(dir.join(format!("{name}.key")), identity.key)?;
    }
    Ok(())
}

fn write_kubeconfig(dir: &Path, ca: &Ca, file: &str, user: &str, identity: &Identity) -> Result<()> {
    let text = certificates::kubeconfig(
        &layout::apiserver(),
        &ca.certificate(),
        user,
        &Credentials::Certificate(identity),
    )?;
    Ok(fs::write(dir.join(format!("{file}.kubeconfig")), text)?)
}
