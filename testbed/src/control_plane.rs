//! Arguments of etcd and the Kubernetes control plane, for the cluster and for a standalone apiserver.
//!
//! Pure: values in, command lines and file contents out.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::pki::{self, Ca, Usage};

/// Service addresses: the cluster's and a lone apiserver's.
pub const SERVICE_CIDRS: &str = "172.30.0.0/16,fd00:96::/112";
/// The first Service address, the one of `default/kubernetes`.
pub const KUBERNETES_SERVICE: &str = "172.30.0.1";
/// [`KUBERNETES_SERVICE`] for IPv6.
pub const KUBERNETES_SERVICE_V6: &str = "fd00:96::1";
/// [`SERVICE_CIDRS`] on a kernel without IPv6.
pub const SERVICE_CIDR_V4: &str = "172.30.0.0/16";

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A file of the control plane: its name in the PKI folder, and its content.
pub type PkiFile = (&'static str, String);

/// etcd on `127.0.0.1:client`, with its data in `dir`.
pub fn etcd(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    [
        format!("--data-dir={}", dir.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=bed={peer}"),
        "--name=bed".to_owned(),
        // Throw-away data: losing it in a power cut is worth a start that does not wait for the disk.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
    .into()
}

/// Options of an apiserver.
pub struct Apiserver<'a> {
    /// The folder with the files of [`pki_files`] and [`AUDIT_POLICY`].
    pub pki: &'a Path,
    /// The address to listen on and to advertise.
    pub address: &'a str,
    /// The TLS port.
    pub port: u16,
    /// etcd's client port on 127.0.0.1.
    pub etcd: u16,
    /// One Service range per address family, comma-separated.
    pub service_cidrs: &'a str,
    /// File of the audit log.
    pub audit_log: PathBuf,
}

/// kube-apiserver: TLS, Node and RBAC authorizers, audit log, the admission plugins that OpenShift adds and we depend on.
pub fn apiserver(options: &Apiserver<'_>) -> Vec<String> {
    let Apiserver {
        pki,
        address,
        port,
        etcd,
        service_cidrs,
        audit_log,
    } = options;
    let file = |name: &str| pki.join(name).display().to_string();
    [
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={service_cidrs}"),
        "--enable-aggregator-routing=true".to_owned(),
        format!("--audit-policy-file={}", file(AUDIT_POLICY.0)),
        format!("--audit-log-path={}", audit_log.display()),
        "--audit-log-maxsize=200".to_owned(),
        "--audit-log-maxbackup=1".to_owned(),
    ]
    .into()
}

/// kube-controller-manager with the kubeconfig `controller-manager.kubeconfig` of the PKI folder.
pub fn controller_manager(pki: &Path, port: u16, service_cidrs: &str) -> Vec<String> {
    let file = |name: &str| pki.join(name).display().to_string();
    let kubeconfig = file("controller-manager.kubeconfig");
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        "--allocate-node-cidrs=false".to_owned(),
        format!("--service-cluster-ip-range={service_cidrs}"),
        "--leader-elect=false".to_owned(),
    ]
    .into()
}

/// kube-scheduler with the kubeconfig `scheduler.kubeconfig` of the PKI folder.
pub fn scheduler(pki: &Path, port: u16) -> Vec<String> {
    let kubeconfig = pki.join("scheduler.kubeconfig").display().to_string();
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        "--leader-elect=false".to_owned(),
    ]
    .into()
}

/// Every finished request with its user and verb, so that a test can count who wrote what.
pub const AUDIT_POLICY: (&str, &str) = (
    "audit-policy.yaml",
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n",
);

/// The files that [`apiserver`] and [`controller_manager`] read, for an apiserver reached by `names` (DNS names, addresses).
pub fn pki_files(ca: &Ca, names: &[&str]) -> Result<Vec<PkiFile>> {
    let front_proxy_ca = Ca::new("front-proxy-ca")?;
    let mut all_names = vec![
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        KUBERNETES_SERVICE,
    ];
    all_names.extend(names);
    let apiserver = ca.issue("kube-apiserver", None, Usage::Server, &all_names)?;
    let kubelet_client = ca.issue(
        "apiserver-kubelet-client",
        Some("system:masters"),
        Usage::Client,
        &[],
    )?;
    let front_proxy = front_proxy_ca.issue("front-proxy-client", None, Usage::Client, &[])?;
    let (private, public) = pki::service_account_keys()?;
    Ok(vec![
        ("ca.crt", ca.certificate()),
        ("ca.key", ca.key()),
        ("apiserver.crt", apiserver.certificate),
        ("apiserver.key", apiserver.key),
        ("apiserver-kubelet.crt", kubelet_client.certificate),
        ("apiserver-kubelet.key", kubelet_client.key),
        ("front-proxy-ca.crt", front_proxy_ca.certificate()),
        ("front-proxy-client.crt", front_proxy.certificate),
        ("front-proxy-client.key", front_proxy.key),
        ("sa.key", private),
        ("sa.pub", public),
        (AUDIT_POLICY.0, AUDIT_POLICY.1.to_owned()),
    ])
}
