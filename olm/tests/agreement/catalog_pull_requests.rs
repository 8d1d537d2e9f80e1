//! The script that submits a release to the community catalogs.

use super::root;
use std::process::Command;

#[test]
fn catalogs_get_a_pull_request_with_the_bundle_of_their_platform() {
    let output = Command::new(root().join(".ci/catalog-pull-requests-test"))
        .env("OLM", env!("CARGO_BIN_EXE_olm"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}
