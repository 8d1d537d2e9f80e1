//! `NetworkRef`: a reference to a network-attachment-definition, as in the annotation `service-network`.
//!
//! Pure. A bare name belongs to the Service's own namespace.

use std::fmt;

/// A network-attachment-definition: namespace and name, both valid Kubernetes names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkRef {
    namespace: String,
    name: String,
}

/// Error of a `service-network` annotation that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNetworkRef {
    /// Nothing but spaces.
    #[error("is empty; write the name of a network-attachment-definition, or namespace/name")]
    Empty,
    /// A comma list: one Service is bound to one network.
    #[error("{0:?} names several networks; a Service has one: make one Service per network")]
    Several(String),
    /// `network@interface`, the form of the pod annotation.
    #[error("{0:?} names an interface; leave out everything from the @ on")]
    Interface(String),
    /// Not `name` or `namespace/name` of valid Kubernetes names.
    #[error(
        "{0:?} is not the name of a network-attachment-definition; write name or namespace/name, in lower-case letters, digits, - and ."
    )]
    Shape(String),
}

impl NetworkRef {
    /// Parses `name` or `namespace/name`. A bare name is taken from `own_namespace`, and spaces in it do not count
    /// (the archived multus-service project removes them); beside a `/` they are an error (there the legacy proxy matched nothing).
    pub fn parse(value: &str, own_namespace: &str) -> Result<Self, ParseNetworkRef> {
        if value.trim().is_empty() {
            return Err(ParseNetworkRef::Empty);
        }
        if value.contains(',') {
            return Err(ParseNetworkRef::Several(excerpt(value)));
        }
        if value.contains('@') {
            return Err(ParseNetworkRef::Interface(excerpt(value)));
        }
        let (namespace, name) = match value.split_once('/') {
            None => (own_namespace.to_owned(), value.replace(' ', "")),
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        };
        if is_label(&namespace) && is_subdomain(&name) {
            Ok(Self { namespace, name })
        } else {
            Err(ParseNetworkRef::Shape(excerpt(value)))
        }
    }

    /// Namespace of the network-attachment-definition.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name of the network-attachment-definition.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the network as a label value, which holds neither a slash nor 317 characters: the 64-bit FNV-1a hash of `namespace/name`, in
    /// hexadecimal. It must never change: slices and selectors of other versions carry it. It only narrows watches, so a
    /// collision of two networks costs traffic and nothing else.
    pub fn label_value(&self) -> String {
        hash(&[&self.namespace, "/", &self.name])
    }

    /// Returns the [`Self::label_value`] of a network named `status_name` in a pod's network-status; `None`: no network attachment.
    pub fn label_value_of(status_name: &str) -> Option<String> {
        let (namespace, name) = status_name.split_once('/')?;
        Some(hash(&[namespace, "/", name]))
    }

    /// Whether Multus names this network `status_name` (`namespace/name`) in a pod's network-status.
    pub fn is_named(&self, status_name: &str) -> bool {
        status_name
            .split_once('/')
            .is_some_and(|(namespace, name)| namespace == self.namespace && name == self.name)
    }
}

/// FNV-1a (draft-eastlake-fnv), 64 bits.
fn hash(parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

impl fmt::Display for NetworkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The first 100 characters: an annotation may be 256 KiB, an event message may not.
fn excerpt(value: &str) -> String {
    match value.char_indices().nth(100) {
        None => value.to_owned(),
        Some((end, _)) => format!("{}...", &value[..end]),
    }
}

/// RFC 1123 label: a namespace's name.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_alphanumeric_with_inner_dashes(text)
}

/// RFC 1123 subdomain: an object's name.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_alphanumeric_with_inner_dashes)
}

fn is_alphanumeric_with_inner_dashes(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf shop/macvlan1 | fnv1a64`: the value is in stored objects.
    #[test]
    fn the_label_value_of_a_network_never_changes() {
        let network = NetworkRef::parse("macvlan1", "shop").unwrap();
        assert_eq!(network.label_value(), "b8317df07c03de17");
        assert_eq!(
            NetworkRef::label_value_of("shop/macvlan1"),
            Some(network.label_value())
        );
        assert_eq!(NetworkRef::label_value_of("cbr0"), None);
        let longest = format!("{}/{}", "n".repeat(63), "x".repeat(253));
        assert_eq!(
            NetworkRef::label_value_of(&longest).map(|value| value.len()),
            Some(16)
        );
    }
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::bare("macvlan1", Ok("web/macvlan1"))]
    #[case::spaces_in_a_bare_name(" mac vlan1 ", Ok("web/macvlan1"))]
    #[case::qualified("infra/macvlan1", Ok("infra/macvlan1"))]
    #[case::dotted("infra/net.100g", Ok("infra/net.100g"))]
    #[case::one_letter("n", Ok("web/n"))]
    #[case::blank("  ", Err(ParseNetworkRef::Empty))]
    #[case::two_slashes("a/b/c", Err(ParseNetworkRef::Shape("a/b/c".into())))]
    #[case::spaces_beside_a_slash("a / b", Err(ParseNetworkRef::Shape("a / b".into())))]
    #[case::no_name("a/", Err(ParseNetworkRef::Shape("a/".into())))]
    #[case::no_namespace("/b", Err(ParseNetworkRef::Shape("/b".into())))]
    #[case::upper_case("Macvlan1", Err(ParseNetworkRef::Shape("Macvlan1".into())))]
    #[case::list("a,b", Err(ParseNetworkRef::Several("a,b".into())))]
    #[case::interface("a@net1", Err(ParseNetworkRef::Interface("a@net1".into())))]
    #[case::json("[{}]", Err(ParseNetworkRef::Shape("[{}]".into())))]
    fn parses(#[case] input: &str, #[case] want: Result<&str, ParseNetworkRef>) {
        assert_eq!(
            NetworkRef::parse(input, "web").map(|n| n.to_string()),
            want.map(str::to_owned)
        );
    }

    #[test]
    fn a_long_value_is_truncated_in_the_message() {
        let message = NetworkRef::parse(&"X".repeat(1 << 20), "web")
            .unwrap_err()
            .to_string();
        assert!(message.len() < 400, "{}", message.len());
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_an_error(value in ".*") {
            if let Ok(network) = NetworkRef::parse(&value, "web") {
                prop_assert!(network.is_named(&network.to_string()));
                prop_assert_eq!(NetworkRef::parse(&network.to_string(), "other"), Ok(network));
            }
        }
    }
}
