//! The example that the README starts with does what it says.

use std::{fs, path::Path};

use crate::project::Project;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let is_made = matches!(entry.file_name().to_str(), Some(".e3" | "out"));
        if entry.file_type().unwrap().is_dir() && !is_made {
            copy(&path, &to);
        } else if !is_made {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn penguins_are_analysed_once_and_only_what_changed_again() {
    let project = Project::new("");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/penguins"), project.path());
    assert_eq!(project.run_counts(), (9, 0));
    assert!(project.read("out/report.md").contains("| Gentoo | bill depth (mm) | 119 | 15.0 |"));
    assert!(project.read("out/penguins.svg").ends_with("</svg>\n"));
    assert!(project.at("out/by_species/adelie.csv").exists());
    assert_eq!(project.run_counts(), (0, 9));
    let clean = project.read("clean.awk");
    project.write("clean.awk", &clean.replacen("Keeps", "keeps", 1));
    assert_eq!(project.run_counts(), (1, 8), "one byte of a comment");
    project.write("clean.awk", &clean.replace("$6 < min_mass", "$6 > min_mass + 2500"));
    assert_eq!(project.run_counts(), (9, 0), "another set of rows reaches everything");
    project.write("clean.awk", &clean);
    assert_eq!(project.run_counts(), (0, 9));
    fs::remove_dir_all(project.at("out")).unwrap();
    assert_eq!(project.run_counts(), (0, 9));
    assert!(project.at("out/report.md").exists() && project.at("out/penguins.svg").exists());
}
