//! The shape of the workspace: `docs/ARCHITECTURE.md` and `cargo metadata` say the same, and no crate imports
//! upwards or across the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that stand on the other side of the wire, and what they must not reach for.
const OUTSIDE: [&str; 5] = ["verify", "client", "agent", "proxy", "cli"];
const INSIDE: [&str; 3] = ["ledger", "keys", "issue"];

#[test]
fn crate_table_lists_exactly_the_workspace_members() {
    let documented: BTreeSet<String> = crate_table().into_keys().collect();
    let built: BTreeSet<String> = imports().into_keys().collect();
    assert_eq!(documented, built, "left: the table of docs/ARCHITECTURE.md, right: cargo metadata");
}

#[test]
fn every_crate_lives_in_the_folder_of_its_name() {
    for package in packages() {
        let name = crate_name(&package);
        let manifest = package["manifest_path"].as_str().expect("a package has a manifest");
        let expected = workspace().join("crates").join(&name).join("Cargo.toml");
        assert_eq!(Path::new(manifest), expected, "package chancery-{name}");
    }
}

#[test]
fn imports_point_to_lower_rows_only() {
    let rows = crate_table();
    let mut upward = Vec::new();
    for (importer, imported) in imports() {
        for target in imported {
            if rows[&target] >= rows[&importer] {
                upward.push(format!(
                    "{importer} (row {}) imports {target} (row {})",
                    rows[&importer], rows[&target]
                ));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("; "));
}

#[test]
fn other_side_of_the_wire_imports_nothing_of_the_authority() {
    let imports = imports();
    for outside in OUTSIDE {
        for inside in INSIDE {
            assert!(!imports[outside].contains(inside), "{outside} must not import {inside}");
        }
    }
}

/// Of the command line, one door leads to the authority; the level of a log line may name it.
#[test]
fn only_one_module_of_the_program_uses_the_server() {
    let mut elsewhere = Vec::new();
    let mut folders = vec![workspace().join("crates/cli/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with("authority_side"))
                && std::fs::read_to_string(&path).expect("a source").contains("chancery_server::")
            {
                elsewhere.push(path);
            }
        }
    }
    assert!(elsewhere.is_empty(), "they use the server past authority_side: {elsewhere:?}");
}

#[test]
fn measured_engines_stay_out_of_the_product() {
    let lock =
        std::fs::read_to_string(workspace().join("Cargo.lock")).expect("the workspace has a lock file");
    for engine in ["sled", "fjall"] {
        assert!(
            !lock.contains(&format!("name = \"{engine}\"")),
            "{engine} is in Cargo.lock: see docs/adr/0001"
        );
    }
}

/// Crate name to row, as the table under `## Crates` has them.
fn crate_table() -> BTreeMap<String, u32> {
    let page = std::fs::read_to_string(workspace().join("docs/ARCHITECTURE.md")).expect("the page is there");
    let section =
        page.split("\n## ").find(|part| part.starts_with("Crates")).expect("a section named Crates");
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(Ok(row)), Some(name)) = (cells.first().map(|cell| cell.parse()), cells.get(1)) else {
            continue; // the heading and the rule below it
        };
        assert!(rows.insert((*name).to_owned(), row).is_none(), "{name} stands in the table twice");
        assert!(cells.get(2).is_some_and(|purpose| !purpose.is_empty()), "{name} has no purpose");
    }
    assert!(!rows.is_empty(), "no table found under ## Crates");
    rows
}

/// Crate name to the crates of this workspace it is built from. Tests may look anywhere, so development
/// dependencies do not count.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    for package in packages() {
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        let ours = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev") && dependency["path"].is_string())
            .map(crate_name)
            .collect();
        imports.insert(crate_name(&package), ours);
    }
    imports
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .expect("cargo ran to build this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

fn crate_name(package: &Value) -> String {
    let name = package["name"].as_str().expect("a package has a name");
    name.strip_prefix("chancery-")
        .unwrap_or_else(|| panic!("{name} is not called chancery-something"))
        .to_owned()
}

fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cli stands in crates/");
    crates.parent().expect("crates/ stands in the workspace").to_owned()
}
