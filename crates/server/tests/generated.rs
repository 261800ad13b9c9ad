//! The gRPC messages that are checked in are what `proto/*.proto` generate: building the product needs no generator.
//!
//! After a change of a `.proto` file, `CHANCERY_REGENERATE=1 cargo test -p chancery-server --test generated` writes the
//! code anew.

use std::path::Path;

#[test]
fn checked_in_code_is_what_the_definition_generates() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile([proto.join("status_feed.proto")], [&proto]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().out_dir(out.path()).compile_fds(descriptors).unwrap();
    let name = "chancery.status.v1.rs";
    let generated = std::fs::read(out.path().join(name)).unwrap();
    let checked_in = proto.join("generated").join(name);
    if std::env::var_os("CHANCERY_REGENERATE").is_some() {
        std::fs::write(&checked_in, &generated).unwrap();
    }
    assert!(
        std::fs::read(&checked_in).unwrap() == generated,
        "{name} is out of date: see the head of this test"
    );
}
