//! The reference of the command line in docs/cli.md is what the commands say of themselves.

use std::{fs, path::Path};

use crate::project::Project;

const COMMANDS: [&[&str]; 15] = [
    &[],
    &["init"],
    &["run"],
    &["start"],
    &["status"],
    &["ls"],
    &["get"],
    &["set"],
    &["logs"],
    &["runs"],
    &["package"],
    &["package", "build"],
    &["package", "import"],
    &["package", "export"],
    &["package", "list"],
];

#[test]
fn the_reference_is_up_to_date() {
    let project = Project::new("");
    let mut text = String::from(
        "# Command line reference\n\nWhat every command says with `--help`. This file is generated: \
         `E3_UPDATE_DOCS=1 cargo test -p e3-cli reference` writes it.\n",
    );
    for command in COMMANDS {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let said = project.done(&arguments);
        let name = ["e3"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
        let help: Vec<_> = said.stdout.lines().map(str::trim_end).collect();
        text += &format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    #[expect(clippy::disallowed_methods, reason = "the switch of a generator, read by nothing else")]
    if std::env::var_os("E3_UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/cli.md is not what the commands say: see its first lines");
}
