//! Objects of a test: a namespace with a copy of the network, servers, Services, and a client per node.
//!
//! Pure.

use super::{SERVER_PORT, SERVERS, SERVICE_PORT};
use api::ObjectName;
use api::names::{PROXY_NAME, PROXY_NAME_LABEL, SELECTOR_ANNOTATION, SERVICE_NETWORK_ANNOTATION};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Annotation of a pod: the networks that Multus attaches it to.
const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// Label of a namespace of this program, for the cleanup after a killed run.
const LABEL: &str = "multusservice.cni.cncf.io/connectivity-test";
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
const MANAGED_BY: &str = "kubectl-multus_service";
/// Beginning of the names of such namespaces.
const PREFIX: &str = "multus-service-test-";
/// The Service with servers.
pub(super) const SERVICE: &str = "web";
/// The Service without endpoints.
pub(super) const EMPTY: &str = "empty";
/// The headless Service with servers.
pub(super) const HEADLESS: &str = "web-headless";
/// Selector of the servers.
pub(super) const SERVER_LABELS: &str = "app=server";
/// Selector of the clients.
pub(super) const CLIENT_LABELS: &str = "app=client";
/// The program in its image.
const PROGRAM: &str = "/usr/bin/kubectl-multus_service";

/// Inputs of the objects.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) namespace: String,
    /// Name of the network-attachment-definition, in the test's namespace too: CNI configuration files may be named after it.
    pub(super) network: String,
    pub(super) image: String,
    /// Nodes with a client.
    pub(super) nodes: Vec<String>,
    /// Nodes of which two have a server.
    pub(super) server_nodes: Vec<String>,
    /// Device of the network that a pod requests: `k8s.v1.cni.cncf.io/resourceName` of its network-attachment-definition.
    pub(super) device: Option<String>,
    /// Longest life of a pod in seconds, for the case that it is not deleted.
    pub(super) deadline: u64,
}

/// Destinations of the clients, as the API server and the controller assigned them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Destinations {
    /// ClusterIPs of families with endpoints.
    pub(super) vips: Vec<IpAddr>,
    pub(super) empty_vips: Vec<IpAddr>,
    pub(super) endpoints: Vec<IpAddr>,
}

/// Returns the name of a client.
pub(super) fn client_name(number: usize) -> String {
    format!("client-{number}")
}

/// Returns the selector of the namespaces of this program.
pub(super) fn labels() -> String {
    format!("{LABEL}=true,{MANAGED_BY_LABEL}={MANAGED_BY}")
}

/// Whether a namespace has a name of this program.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Returns the name of a namespace; `unique` differs between runs.
pub(super) fn namespace_name(unique: u64) -> String {
    format!("{PREFIX}{unique:x}")
}

impl Objects {
    pub(super) fn namespace(&self) -> Namespace {
        typed(json!({"metadata": {
            "name": self.namespace,
            "labels": {
                LABEL: "true",
                MANAGED_BY_LABEL: MANAGED_BY,
                "pod-security.kubernetes.io/enforce": "restricted",
            },
            // OpenShift's default node selector would keep clients from nodes.
            "annotations": {"openshift.io/node-selector": ""},
        }}))
    }

    /// Copies a network-attachment-definition. The configuration of OVN-Kubernetes contains the name of its object.
    pub(super) fn network(&self, original: &DynamicObject) -> DynamicObject {
        let own = ObjectName::new(&self.namespace, &self.network).to_string();
        let mut copy = original.clone();
        let annotations = copy.metadata.annotations.take().map(|mut all| {
            all.retain(|key, _| !key.contains("kubectl.kubernetes.io/"));
            all
        });
        copy.metadata = typed(json!({"name": self.network, "namespace": self.namespace}));
        copy.metadata.annotations = annotations;
        let config = copy.data["spec"]["config"].as_str().unwrap_or_default();
        if let Ok(mut config) = serde_json::from_str::<Value>(config)
            && config.get("netAttachDefName").is_some()
        {
            config["netAttachDefName"] = json!(own);
            copy.data["spec"]["config"] = json!(config.to_string());
        }
        copy
    }

    /// The three Services.
    pub(super) fn services(&self) -> [Service; 3] {
        let service = |name: &str, mut spec: Value, annotations: Value| {
            spec["ipFamilyPolicy"] = json!("PreferDualStack");
            spec["ports"] = json!([
                {"name": "tcp", "protocol": "TCP", "port": SERVICE_PORT, "targetPort": SERVER_PORT},
                {"name": "udp", "protocol": "UDP", "port": SERVICE_PORT, "targetPort": SERVER_PORT},
            ]);
            let mut service: Service = typed(json!({
                "metadata": {
                    "name": name,
                    "namespace": self.namespace,
                    "labels": {PROXY_NAME_LABEL: PROXY_NAME},
                    "annotations": annotations,
                },
                "spec": spec,
            }));
            let annotations = service.metadata.annotations.get_or_insert_default();
            annotations.insert(SERVICE_NETWORK_ANNOTATION.to_owned(), self.network.clone());
            service
        };
        let (servers, nothing) = (
            json!({"selector": {"app": "server"}}),
            json!({"selector": {"app": "none"}}),
        );
        [
            service(SERVICE, servers, json!({})),
            service(EMPTY, nothing, json!({})),
            // With a selector kube-controller-manager writes slices with the addresses of the cluster network.
            service(
                HEADLESS,
                json!({"clusterIP": "None"}),
                json!({SELECTOR_ANNOTATION: SERVER_LABELS}),
            ),
        ]
    }

    /// What a server answers. Nothing else on the network knows the namespace.
    fn answer(&self, number: usize) -> String {
        format!("server-{number}.{}", self.namespace)
    }

    pub(super) fn servers(&self) -> Vec<Pod> {
        (1..=SERVERS)
            .map(|number| {
                let name = format!("server-{number}");
                let args = ["connectivity-server".to_owned(), format!("--name={}", self.answer(number))];
                let mut spec = self.pod_spec(&self.server_nodes, "server", &args);
                spec["affinity"]["podAntiAffinity"] = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 100,
                    "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "server"}}},
                }]});
                self.pod(&name, "server", &spec)
            })
            .collect()
    }

    /// The client of a node; `number` is part of its name, because names of nodes may be longer than those of pods.
    pub(super) fn client(&self, number: usize, node: &str, to: &Destinations, patience: u64) -> Pod {
        let name = |service: &str| format!("{service}.{}.svc", self.namespace);
        let mut args = vec![
            "connectivity-client".to_owned(),
            format!("--name={}", name(SERVICE)),
            format!("--headless-name={}", name(HEADLESS)),
            format!("--patience={patience}"),
        ];
        args.extend((1..=SERVERS).map(|number| format!("--server={}", self.answer(number))));
        let mut all = |option: &str, addresses: &[IpAddr]| {
            args.extend(addresses.iter().map(|address| format!("--{option}={address}")));
        };
        all("vip", &to.vips);
        all("empty-vip", &to.empty_vips);
        all("endpoint", &to.endpoints);
        let spec = self.pod_spec(&[node.to_owned()], "client", &args);
        self.pod(&client_name(number), "client", &spec)
    }

    fn pod(&self, name: &str, app: &str, spec: &Value) -> Pod {
        typed(json!({
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {"app": app},
                "annotations": {NETWORKS_ANNOTATION: self.network},
            },
            "spec": spec,
        }))
    }

    fn resources(&self) -> Value {
        let mut resources =
            json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}});
        if let Some(device) = &self.device {
            resources["requests"][device] = json!("1");
            resources["limits"][device] = json!("1");
        }
        resources
    }

    fn pod_spec(&self, nodes: &[String], container: &str, args: &[String]) -> Value {
        json!({
            "restartPolicy": "Never",
            "activeDeadlineSeconds": self.deadline,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            // The programs handle no signal.
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": nodes.iter().map(|node| json!({
                    "matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}],
                })).collect::<Vec<_>>(),
            }}},
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": container,
                "image": self.image,
                "imagePullPolicy": "IfNotPresent",
                "command": [PROGRAM],
                "args": args,
                "resources": self.resources(),
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        })
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("its fields are those of the type: the tests build every object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn objects() -> Objects {
        Objects {
            namespace: namespace_name(0xabc),
            network: "macvlan1".to_owned(),
            image: "quay.io/multus-service/tools:v1".to_owned(),
            nodes: vec!["node-1".to_owned()],
            server_nodes: vec!["node-1".to_owned(), "node-2".to_owned()],
            device: None,
            deadline: 600,
        }
    }

    fn definition(config: &str) -> DynamicObject {
        typed(json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "macvlan1", "namespace": "shop", "uid": "u", "resourceVersion": "5", "annotations": {
                "k8s.v1.cni.cncf.io/resourceName": "intel.com/vf",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            }},
            "spec": {"config": config},
        }))
    }

    /// Multus reads the annotation of a network with devices.
    #[test]
    fn a_network_is_copied_with_its_annotations() {
        let copy = objects().network(&definition("{\"type\": \"macvlan\"}"));
        assert_eq!(
            ObjectName::of_metadata(&copy.metadata).to_string(),
            "multus-service-test-abc/macvlan1"
        );
        assert_eq!(copy.metadata.resource_version, None);
        let annotations: Vec<_> = copy.metadata.annotations.unwrap().into_keys().collect();
        assert_eq!(annotations, ["k8s.v1.cni.cncf.io/resourceName"]);
        assert_eq!(copy.data["spec"]["config"], "{\"type\": \"macvlan\"}");
    }

    #[test]
    fn a_network_of_ovn_kubernetes_names_its_copy() {
        let copy = objects().network(&definition("{\"netAttachDefName\":\"shop/macvlan1\"}"));
        assert_eq!(
            copy.data["spec"]["config"],
            "{\"netAttachDefName\":\"multus-service-test-abc/macvlan1\"}"
        );
    }

    /// The injector of SR-IOV does so too, where it is installed.
    #[test]
    fn a_pod_requests_the_device_of_its_network() {
        let device = "intel.com/vf".to_owned();
        let objects = Objects {
            device: Some(device.clone()),
            ..objects()
        };
        for pod in objects.servers() {
            let resources = pod.spec.unwrap().containers.remove(0).resources.unwrap();
            assert_eq!(resources.limits.unwrap()[&device].0, "1");
            assert_eq!(resources.requests.unwrap()[&device].0, "1");
        }
    }

    /// A client that is tested alone reaches servers on every node.
    #[test]
    fn servers_run_on_nodes_without_a_client_too() {
        let of = |pod: &Pod| serde_json::to_string(&pod.spec.as_ref().unwrap().affinity).unwrap();
        assert!(of(&objects().servers()[0]).contains("node-2"));
        let client = objects().client(0, "node-1", &Destinations::default(), 1);
        assert!(!of(&client).contains("node-2"));
    }

    /// The controller accepts the Services.
    #[test]
    fn the_controller_accepts_every_service() {
        for service in objects().services() {
            let network = api::service::network(&service).unwrap();
            assert_eq!(network.to_string(), "multus-service-test-abc/macvlan1");
            let ports = service.spec.unwrap().ports.unwrap();
            assert_eq!(ports.len(), 2);
        }
    }

    /// What the pods are started with is a command line of this program.
    #[test]
    fn the_programs_of_the_pods_parse_their_arguments() {
        let to = Destinations {
            vips: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            empty_vips: vec!["10.96.0.2".parse().unwrap()],
            endpoints: vec!["10.1.0.2".parse().unwrap(), "10.1.0.3".parse().unwrap()],
        };
        let client = objects().client(7, "node-2", &to, 30);
        assert_eq!(client.metadata.name.as_deref(), Some("client-7"));
        let mut parsed = Vec::new();
        for pod in objects().servers().into_iter().chain([client]) {
            let container = pod.spec.unwrap().containers.remove(0);
            let words = container
                .command
                .unwrap()
                .into_iter()
                .chain(container.args.unwrap());
            parsed.push(Cli::try_parse_from(words).unwrap().command);
        }
        let [
            Command::ConnectivityServer { .. },
            Command::ConnectivityServer { .. },
            Command::ConnectivityClient { plan },
        ] = parsed.as_slice()
        else {
            panic!("{parsed:?}")
        };
        assert_eq!(
            (&plan.vips, &plan.empty_vips, &plan.endpoints),
            (&to.vips, &to.empty_vips, &to.endpoints)
        );
        assert_eq!(
            (plan.name.as_str(), plan.patience),
            ("web.multus-service-test-abc.svc", 30)
        );
        assert_eq!(plan.servers[1], "server-2.multus-service-test-abc");
    }
}
