//! `Family`: IPv4 or IPv6.
//!
//! Pure.

use std::fmt;
use std::net::IpAddr;

/// An IP family, as `ipFamilies` of a Service and `addressType` of a slice name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order of all writes.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Parses the name in the Kubernetes API; `None` for any other text, such as the address type `FQDN`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }

    /// The name in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::v4("IPv4", Some(Family::V4))]
    #[case::v6("IPv6", Some(Family::V6))]
    #[case::fqdn("FQDN", None)]
    #[case::deprecated("IP", None)]
    #[case::lower_case("ipv4", None)]
    fn a_family_has_the_name_of_the_kubernetes_api(#[case] name: &str, #[case] want: Option<Family>) {
        assert_eq!(Family::parse(name), want);
        assert!(want.is_none_or(|family| family.to_string() == name));
    }
}
