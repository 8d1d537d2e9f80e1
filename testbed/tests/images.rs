//! The images of the test bed are built once and then found.

use std::cell::RefCell;

#[test]
#[ignore = "needs root and Debian packages: make test-e2e"]
fn an_image_is_built_once() {
    testbed::images::bed_images(&|line| eprintln!("{line}")).expect("the images build");

    let lines = RefCell::new(Vec::new());
    let images = testbed::images::bed_images(&|line| lines.borrow_mut().push(line.to_owned()))
        .expect("the images are found");

    assert_eq!(lines.into_inner(), Vec::<String>::new());
    let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(
        names,
        [
            testbed::images::PAUSE,
            testbed::images::COREDNS,
            testbed::images::WORKLOAD
        ]
    );
    assert!(images.iter().all(|image| image.archive.is_file()));
}
