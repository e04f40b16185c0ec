//! The tests that `docs/design/04-dataflow.md` names are there.

use std::{fs, path::Path};

/// All test functions of a source file, or of all files in a folder.
fn source(path: &Path, text: &mut String) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the folder is there") {
            source(&entry.expect("the folder can be read").path(), text);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        text.push_str(&fs::read_to_string(path).expect("the file can be read"));
    }
}

#[test]
fn every_test_that_the_design_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    source(&root.join("crates"), &mut text);
    let document =
        fs::read_to_string(root.join("docs/design/04-dataflow.md")).expect("the document is there");
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains("::"));
    let mut named = 0;
    for row in rows {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let function = name.rsplit("::").next().unwrap_or(name);
            assert!(
                text.contains(&format!("fn {function}(")),
                "the design names a test `{name}` that is not there"
            );
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests were found in the tables");
}
