//! The gRPC code that is checked in is what `proto/*.proto` generate: building the product needs no generator.
//!
//! After a change of a `.proto` file, `CHANCERY_REGENERATE=1 cargo test -p chancery-agent --test generated`
//! writes the code anew.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that called it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost_build::Config;

const SOURCES: [&str; 2] = ["workload.proto", "envoy/service/secret/v3/sds.proto"];
/// Types that no other file imports, so that they have to be named.
const EXTENSIONS: [&str; 1] = ["envoy/extensions/transport_sockets/tls/v3/tls.proto"];
/// Messages with keys and tokens in them: `proto.rs` gives them a Debug that does not show them.
const SECRETS: [&str; 4] =
    [".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest", ".envoy.config.core.v3.DataSource"];

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
    let checked_in = read_folder(&folder);
    assert_eq!(names(&checked_in), names(&generated));
    for (name, content) in generated {
        assert!(checked_in[&name] == content, "{name} is out of date: see the head of this test");
    }
}

fn generate() -> BTreeMap<String, Vec<u8>> {
    let sources = SOURCES.iter().chain(&EXTENSIONS).map(|name| proto().join(name));
    let descriptors = protox::compile(sources, [proto()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut config = Config::new();
    config.default_package_filename("spiffe.workload");
    tonic_prost_build::configure()
        .build_transport(false)
        .skip_debug(SECRETS)
        .out_dir(out.path())
        .file_descriptor_set_path(out.path().join("descriptors.bin"))
        .compile_fds_with_config(descriptors.clone(), config)
        .unwrap();
    let mut generated = read_folder(out.path());
    generated.insert("descriptors.bin".to_owned(), prost::Message::encode_to_vec(&descriptors));
    generated
}

fn read_folder(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap();
    let read = |file: std::fs::DirEntry| {
        (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
    };
    files.map(|file| read(file.unwrap())).collect()
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<&String> {
    files.keys().collect()
}

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}
