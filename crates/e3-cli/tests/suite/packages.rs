//! Packages as files.

use std::fs;

use crate::project::Project;

fn project() -> Project {
    let project = Project::new(
        r#"
        version = "1.2.3"
        [inputs]
        raw = { file = "raw.txt" }
        photos = { dir = "photos" }
        params = { json = { n = 1 } }
        [tasks.a]
        command = "sh a.sh {raw} {params} > {output}"
        code = ["a.sh"]
        "#,
    );
    project.write("raw.txt", "raw\n");
    project.write("photos/one", "");
    project.write("photos/deep/two", "two");
    project.write("a.sh", "cat \"$@\"\n");
    project
}

#[test]
fn a_package_is_built_exported_and_imported() {
    let project = project();
    let built = project.done(&["package", "build", "--json"]).json();
    assert_eq!(built["packages"][0]["version"], "1.2.3");
    project.done(&["package", "export", "test", "-o", "one.zip"]);
    project.done(&["package", "export", "test@1.2.3", "-o", "two.zip"]);
    assert_eq!(fs::read(project.at("one.zip")).unwrap(), fs::read(project.at("two.zip")).unwrap());

    let other = Project::new("");
    let archive = project.at("one.zip");
    let imported = other.done(&["package", "import", archive.to_str().unwrap(), "--json"]).json();
    assert_eq!(imported, built);
    assert_eq!(other.done(&["package", "list", "--json"]).json(), built);
    other.done(&["package", "export", "test", "-o", "three.zip"]);
    assert_eq!(
        fs::read(&archive).unwrap(),
        fs::read(other.at("three.zip")).unwrap(),
        "the same bytes everywhere"
    );
    assert_eq!(project.e3(&["package", "export", "tset", "-o", "x.zip"]).code, Some(3));

    project.write("raw.txt", "changed\n");
    project.done(&["package", "build"]);
    let said = project.e3(&["package", "import", "one.zip"]);
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.stderr.contains("there is another package `test` 1.2.3 in this repository"), "{said:?}");
}

#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let project = project();
    project.done(&["package", "build"]);
    project.done(&["package", "export", "test", "-o", "good.zip"]);
    let good = fs::read(project.at("good.zip")).unwrap();
    let other = Project::new("");
    other.done(&["package", "list"].map(|word| if word == "list" { "build" } else { word }));
    let objects = || walk(&other.at(".e3/objects"));
    let before = objects();
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        other.write("bad.zip", "");
        fs::write(other.at("bad.zip"), &bad).unwrap();
        let said = other.e3(&["package", "import", "bad.zip"]);
        // Times, modes and the directory at the end are not read: such an archive says the same.
        assert!(matches!(said.code, Some(0 | 2)), "byte {at}: {said:?}");
        if said.code == Some(2) {
            assert_eq!(objects(), before, "byte {at}");
        } else {
            fs::remove_dir_all(other.at(".e3")).unwrap();
            other.done(&["package", "build"]);
        }
    }
    for cut in [0, 10, good.len() / 2] {
        fs::write(other.at("bad.zip"), &good[..cut]).unwrap();
        assert_eq!(other.e3(&["package", "import", "bad.zip"]).code, Some(2), "cut at {cut}");
    }
    assert_eq!(other.e3(&["package", "import", "no.zip"]).code, Some(3));
}

/// The names of all files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
