//! Checks docs/developer/sig-network.md: every test that it names exists.

use std::path::Path;

#[test]
fn every_test_named_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = std::fs::read_to_string(root.join("docs/developer/sig-network.md")).unwrap();
    let mut named = 0;
    // Every other piece between backquotes is code.
    for code in table.split('`').skip(1).step_by(2) {
        let Some((file, test)) = code.split_once("::") else {
            continue;
        };
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let name = format!("fn {test}(");
        assert!(source.contains(&name), "{file} has no test {test}");
        // A function of the netns level becomes tests only when it is listed.
        let is_listed =
            !file.contains("/netns/") || source.matches(test).count() > 1 || source.contains("#[test]");
        assert!(is_listed, "{file}: {test} is not run");
        named += 1;
    }
    assert!(named > 20, "the table has gone: {named} tests named");
}
