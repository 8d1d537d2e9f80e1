//! THIRD-PARTY-NOTICES has the licences of the crates in Cargo.lock.

use super::root;
use sha2::{Digest as _, Sha256};

/// The licences take minutes to collect, hence the page names the crates by a checksum.
#[test]
fn notices_are_those_of_the_crates() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let lock = read("Cargo.lock");
    let mut hash = Sha256::new();
    for line in lock.lines().filter(|line| line.starts_with("checksum")) {
        hash.update(line);
        hash.update("\n");
    }
    let checksum = format!("{:x}", hash.finalize());
    let notices = read("THIRD-PARTY-NOTICES");
    assert!(
        notices.lines().any(|line| line == checksum),
        "THIRD-PARTY-NOTICES is not that of Cargo.lock: run `make notices`"
    );
    for part in ["Apache License", "  tokio 1.", "  kube 5.", "(MIT), of"] {
        assert!(notices.contains(part), "{part}");
    }
}
