//! The gRPC code that is checked in is what `proto/*.proto` generate: building the product needs no generator.
//!
//! After a change of a `.proto` file, `CHANCERY_REGENERATE=1 cargo test -p chancery-proxy --test generated`
//! writes the code anew.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[test]
fn checked_in_code_is_what_the_definitions_generate() {
    let generated = generate();
    let folder = proto().join("generated");
    if std::env::var_os("CHANCERY_REGENERATE").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in &generated {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
    assert_eq!(read_folder(&folder), generated, "out of date: see the head of this test");
}

fn generate() -> BTreeMap<String, String> {
    let source = proto().join("envoy/service/auth/v3/auth.proto");
    let descriptors = protox::compile([source], [proto()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    read_folder(out.path())
}

fn read_folder(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap();
    let read = |file: std::fs::DirEntry| {
        (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap())
    };
    files.map(|file| read(file.unwrap())).collect()
}

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}
