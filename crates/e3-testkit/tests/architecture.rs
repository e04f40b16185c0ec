//! The arrows between crates that must never exist, read from `cargo metadata`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Crate -> the crates that it may use outside of tests. `None`: any but those that `nobody_uses` names.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "e3-types" | "e3-process" => &[],
        "e3-core" | "e3-console" => &["e3-types"],
        "e3-store" | "e3-testkit" | "e3-pipeline" | "e3-example-embed" => &["e3-core", "e3-types"],
        "e3-exec" => &["e3-core", "e3-process", "e3-types"],
        "e3-cli" => return None,
        other => {
            panic!("`{other}` is new: say here what it may depend on, and in ARCHITECTURE.md why it exists")
        }
    })
}

/// Libraries that the engine must not see, at any distance.
const FENCED: [&str; 10] =
    ["rusqlite", "clap", "axum", "reqwest", "tonic", "hyper", "kube", "rustix", "nix", "notify"];

struct Dependency {
    name: String,
    is_dev: bool,
}

/// Every package of the workspace with its direct dependencies.
fn workspace(metadata: &Value) -> BTreeMap<String, Vec<Dependency>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members: Vec<_> = metadata["workspace_members"].as_array().unwrap().iter().map(text).collect();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .filter(|package| members.contains(&text(&package["id"])))
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let dependencies = dependencies
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    is_dev: dependency["kind"].as_str() == Some("dev"),
                })
                .collect();
            (text(&package["name"]), dependencies)
        })
        .collect()
}

/// Of the platform that the tests run on: what others need may not even have been downloaded.
fn metadata() -> Value {
    let version = output(Command::new("rustc").arg("-vV"));
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = ["metadata", "--format-version=1", "--locked", "--filter-platform", host];
    serde_json::from_slice(&output(Command::new(env!("CARGO")).args(metadata))).unwrap()
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The arrows that are there and must not be.
fn violations(workspace: &BTreeMap<String, Vec<Dependency>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, dependencies) in workspace {
        for Dependency { name: target, is_dev } in dependencies {
            if !workspace.contains_key(target) {
                continue;
            }
            let forbidden = if target == "e3-cli" {
                true
            } else if *is_dev {
                false
            } else {
                target == "e3-testkit"
                    || allowed(name).is_some_and(|allowed| !allowed.contains(&target.as_str()))
            };
            if forbidden {
                found.push(format!("{name} -> {target}"));
            }
        }
    }
    found
}

#[test]
fn no_forbidden_arrow_exists() {
    let workspace = workspace(&metadata());
    assert!(workspace.len() >= 9, "{:?}", workspace.keys());
    assert_eq!(violations(&workspace), Vec::<String>::new());
}

#[test]
fn the_check_notices_a_forbidden_arrow() {
    let arrow = |name: &str, is_dev| Dependency { name: name.to_owned(), is_dev };
    let mut workspace: BTreeMap<_, _> =
        ["e3-core", "e3-store", "e3-cli", "e3-testkit", "e3-types", "e3-console"]
            .map(|name| (name.to_owned(), Vec::new()))
            .into();
    let mut add = |from: &str, to: &str, is_dev| workspace.get_mut(from).unwrap().push(arrow(to, is_dev));
    add("e3-core", "e3-store", false);
    add("e3-core", "e3-testkit", true);
    add("e3-console", "e3-core", false);
    add("e3-store", "e3-core", false);
    add("e3-store", "e3-cli", true);
    add("e3-cli", "e3-store", false);
    add("e3-cli", "e3-testkit", false);
    let expected =
        ["e3-cli -> e3-testkit", "e3-console -> e3-core", "e3-core -> e3-store", "e3-store -> e3-cli"];
    assert_eq!(violations(&workspace), expected);
}

#[test]
fn the_engine_is_coupled_to_nothing() {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let ids: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let uses: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|node| {
            let targets = node["deps"].as_array().unwrap().iter().filter(|dependency| {
                let kinds = dependency["dep_kinds"].as_array().unwrap();
                kinds.iter().any(|kind| kind["kind"].is_null())
            });
            (node["id"].as_str().unwrap(), targets.map(|target| target["pkg"].as_str().unwrap()).collect())
        })
        .collect();
    let core = *ids.iter().find(|(_, name)| **name == "e3-core").unwrap().0;
    let mut reached = std::collections::BTreeSet::new();
    let mut open = vec![core];
    while let Some(id) = open.pop() {
        if reached.insert(id) {
            open.extend(&uses[id]);
        }
    }
    let names: Vec<_> = reached.iter().map(|id| ids[id]).collect();
    assert!(names.contains(&"tokio"), "the walk works: {names:?}");
    for fenced in FENCED {
        assert!(!names.contains(&fenced), "e3-core must not see {fenced}");
    }
}
