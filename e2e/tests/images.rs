//! The images of the test bed are built once and then found.

use std::cell::RefCell;

#[test]
#[ignore = "needs root and Debian packages: make test-e2e"]
fn an_image_is_built_once() {
    e2e::images::bed_images(&|line| eprintln!("{line}")).expect("the images build");

    let said = RefCell::new(Vec::new());
    let images = e2e::images::bed_images(&|line| said.borrow_mut().push(line.to_owned()))
        .expect("the images are found");

    assert_eq!(said.into_inner(), Vec::<String>::new());
    let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(
        names,
        [e2e::images::PAUSE, e2e::images::COREDNS, e2e::images::WORKLOAD]
    );
    assert!(images.iter().all(|image| image.archive.is_file()));
}
