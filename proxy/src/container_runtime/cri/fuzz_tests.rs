//! See [`crate::fuzz_tests`]. The runtime is trusted; what it passes on of images and annotations is not.

use super::netns_path;
use super::proto::{ListPodSandboxResponse, PodSandbox, PodSandboxStatusResponse, VersionResponse};
use prost::Message;
use testbed::fuzz;

const CRIO: &str = r#"{"image":"pause","pid":7,"runtimeSpec":{"ociVersion":"1.2.0","annotations":{"io.kubernetes.cri-o.Name":"k8s_web"},
    "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/6f1c"},{"type":"uts","path":"/var/run/utsns/6f1c"}]}}}"#;
const CONTAINERD: &str = r#"{"pid":7,"processStatus":"running","netNamespaceClosed":false,"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/cni-1"}]}},
    "sandboxMetadata":{"Version":"v1","Metadata":{"ID":"s","NetNSPath":"/var/run/netns/cni-1","IP":"10.128.0.7"}}}"#;

fn corpus() -> Vec<Vec<u8>> {
    let version = VersionResponse {
        runtime_name: "cri-o".to_owned(),
        runtime_version: "1.34.0".to_owned(),
    };
    let sandbox = PodSandbox {
        id: "3f4e5d6c7b8a".to_owned(),
        created_at: 1_700_000_000_000_000_000,
        runtime_handler: "kata".to_owned(),
    };
    let list = ListPodSandboxResponse {
        items: vec![sandbox.clone(), sandbox],
    };
    let status = |info: &str| PodSandboxStatusResponse {
        info: [("info".to_owned(), info.to_owned())].into(),
    };
    vec![
        version.encode_to_vec(),
        list.encode_to_vec(),
        status(CRIO).encode_to_vec(),
        status(CONTAINERD).encode_to_vec(),
    ]
}

/// A decoded message is the same after it is encoded and decoded again.
fn decode<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(
        M::decode(message.encode_to_vec().as_slice()).as_ref(),
        Ok(&message)
    );
    Some(message)
}

#[test]
fn fuzz_responses_of_the_runtime() {
    fuzz::bytes(&corpus(), |bytes| {
        decode::<VersionResponse>(bytes);
        decode::<ListPodSandboxResponse>(bytes);
        let status = decode::<PodSandboxStatusResponse>(bytes).unwrap_or_default();
        for info in status.info.values() {
            assert!(netns_path(info).is_none_or(|path| path.is_absolute()));
        }
    });
}

#[test]
fn fuzz_the_verbose_part_of_a_status() {
    fuzz::text(&[CRIO, CONTAINERD], |info| {
        assert!(netns_path(info).is_none_or(|path| path.is_absolute()));
    });
}
