//! What the package, the units and the chart name exists, and they name the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn metadata() -> toml::Table {
    let manifest: toml::Table = toml::from_str(&read("crates/cli/Cargo.toml")).unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

fn units() -> Vec<(String, String)> {
    let directory = std::fs::read_dir(workspace().join("docs/packaging")).unwrap();
    let names = directory.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let units = names.filter(|name| name.ends_with(".service"));
    units.map(|name| (name.clone(), read(&format!("docs/packaging/{name}")))).collect()
}

#[test]
fn what_the_package_takes_is_there_or_is_made_by_its_script() {
    let metadata = metadata();
    let script = read("scripts/package");
    for asset in metadata["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap();
        let path = source.strip_prefix("../../").unwrap_or_else(|| panic!("{source}"));
        if let Some(made) = path.strip_prefix("target/package/") {
            let name = made.split(['/', '*']).next().unwrap();
            assert!(script.contains(&format!("$out/{name}")), "scripts/package does not make {made}");
            continue;
        }
        let plain = path.split('*').next().unwrap();
        assert!(workspace().join(plain).exists(), "{path}");
    }
    for key in ["changelog", "maintainer-scripts"] {
        let path = metadata[key].as_str().unwrap().strip_prefix("../../").unwrap();
        assert!(workspace().join(path).exists(), "{path}");
    }
    let licence = metadata["license-file"][0].as_str().unwrap().strip_prefix("../../").unwrap();
    assert!(read(licence).contains("License: Apache-2.0 or Expat"));
}

#[test]
fn units_start_what_there_is_as_users_that_the_package_makes() {
    let users = read("packaging/debian/sysusers.conf");
    let fallback = read("packaging/debian/scripts/postinst");
    let units = units();
    assert_eq!(units.len(), 5);
    for (name, text) in units {
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let command: Vec<&str> = start.split(' ').collect();
        assert_eq!(command[0], "/usr/bin/chancery", "{name}");
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_chancery"))
            .args([command[1], "--help"])
            .output()
            .unwrap();
        assert!(help.status.success(), "{name} starts {start}");
        let help = String::from_utf8(help.stdout).unwrap();
        for flag in command[2..].iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{name}: {} knows no {flag}", command[1]);
        }
        if let Some(user) = text.lines().find_map(|line| line.strip_prefix("User=")) {
            assert!(users.contains(&format!("u {user} ")), "{name} runs as {user}, whom nobody makes");
            assert!(fallback.contains(&format!("make_user {user} ")), "{name}: {user}");
        }
    }
}

#[test]
fn a_purge_removes_no_log_and_no_key() {
    for script in ["postinst", "prerm", "postrm"] {
        let text = read(&format!("packaging/debian/scripts/{script}"));
        for word in ["rm ", "rmdir", "userdel", "deluser", "unlink"] {
            assert!(!text.contains(word), "{script} has {word:?}");
        }
    }
}

#[test]
fn package_and_chart_are_of_the_programs_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("packaging/debian/changelog").starts_with(&format!("chancery ({version}-1)")));
    let chart = read("packaging/helm/chancery/Chart.yaml");
    assert!(chart.contains(&format!("appVersion: \"{version}\"")), "{chart}");
}

#[test]
fn templates_of_the_chart_name_values_that_there_are() {
    let directory = workspace().join("packaging/helm/chancery/templates");
    let values = read("packaging/helm/chancery/values.yaml");
    let mut named = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for rest in text.split(".Values.").skip(1) {
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
            named.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        let key = name.rsplit('.').next().unwrap();
        let is_there = values.lines().any(|line| line.trim_start().starts_with(&format!("{key}:")));
        assert!(is_there, "values.yaml has no {name}");
    }
}
