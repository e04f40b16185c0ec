//! What goes wrong, and what a newcomer is told then.

use crate::project::{Project, Said};

fn run(pipeline: &str) -> Said {
    let project = Project::new(pipeline);
    let said = project.e3(&["run", "-j1"]);
    assert_eq!(project.leftovers(), 0, "{said:?}");
    said
}

#[test]
fn a_task_that_exits_with_a_code() {
    let said = run("[tasks.bad]\ncommand = \"echo looking; echo not found >&2; exit 3\"\n\
         [tasks.after]\ncommand = \"cat {bad} > {output}\"\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 1
    [1/2] failed  bad  exited with code 3
    [2/2] skipped after  because `bad` failed
    failed: 2 tasks, 0 ran, 0 cached, 1 failed, 1 skipped in TIME

    failed bad: exited with code 3
      | looking
      | not found
      skipped because of it: after
      next: e3 logs bad
    ");
}

#[test]
fn a_task_that_is_killed() {
    let said = run("[tasks.bad]\ncommand = \"kill -SEGV $$\"\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 1
    [1/1] failed  bad  killed by signal 11 (SIGSEGV)
    failed: 1 task, 0 ran, 0 cached, 1 failed in TIME

    failed bad: killed by signal 11 (SIGSEGV)
    ");
}

#[test]
fn a_task_that_writes_no_output() {
    let said = run("[tasks.bad]\ncommand = \"true\"\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 1
    [1/1] failed  bad  the task ended with code 0 but wrote no output: it must write its file to the path that `{output}` and $E3_OUTPUT stand for
    failed: 1 task, 0 ran, 0 cached, 1 failed in TIME

    failed bad: the task ended with code 0 but wrote no output: it must write its file to the path that `{output}` and $E3_OUTPUT stand for
    ");
}

#[test]
fn a_command_that_does_not_exist() {
    let said = run("[tasks.bad]\ncommand = [\"no-such-program\", \"{output}\"]\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 1
    [1/1] failed  bad  the command `no-such-program` was not found in any folder of PATH: is it installed?
    failed: 1 task, 0 ran, 0 cached, 1 failed in TIME

    failed bad: the command `no-such-program` was not found in any folder of PATH: is it installed?
    ");
    let said = run("[tasks.bad]\ncommand = \"no-such-program > {output}\"\n");
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("exited with code 127 (by convention of the shell: command not found)"),
        "{said:?}"
    );
}

#[test]
fn a_cycle() {
    let said =
        run("[tasks.a]\ncommand = \"cat {c} > {output}\"\n[tasks.b]\ncommand = \"cat {a} > {output}\"\n\
         [tasks.c]\ncommand = \"cat {b} > {output}\"\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 2
    error: e3.toml:3:8: these tasks wait for each other in a cycle: a -> b -> c -> a
      |
    3 | [tasks.a]
      |        ^
    ");
}

#[test]
fn an_unknown_name() {
    let said =
        run("[inputs]\nraw = { file = \"raw.txt\" }\n[tasks.clean]\ncommand = \"sort {rwa} > {output}\"\n");
    insta::assert_snapshot!(said.steady(), @r#"
    exit 2
    error: e3.toml:6:17: there is no input or task `rwa`: did you mean `raw`? (`{{rwa}}` stands for the text `{rwa}` itself)
      |
    6 | command = "sort {rwa} > {output}"
      |                 ^^^^^
    "#);
}

#[test]
fn a_wrong_type() {
    let said = run("[tasks.clean]\ncommand = \"sort\"\ntimeout = 10\n");
    insta::assert_snapshot!(said.steady(), @r#"
    exit 2
    error: e3.toml:5:11: `timeout` of task `clean` must be a duration in quotes, such as "10m", but is an integer
      |
    5 | timeout = 10
      |           ^^
    "#);
}

#[test]
fn a_source_that_is_not_there() {
    let said =
        run("[inputs]\nraw = { file = \"data/raw.txt\" }\n[tasks.a]\ncommand = \"cat {raw} > {output}\"\n");
    insta::assert_snapshot!(said.steady(), @r#"
    exit 2
    error: e3.toml:4:1: raw: `data/raw.txt` does not exist
      |
    4 | raw = { file = "data/raw.txt" }
      | ^^^
    "#);
}

#[test]
fn a_target_that_means_nothing() {
    let project = Project::new("[tasks.clean]\ncommand = \"echo > {output}\"\n");
    let said = project.e3(&["run", "claen"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert_eq!(said.stderr, "error: no task matches `claen`: did you mean `clean`?\n");
}

#[test]
fn no_project_and_no_repository() {
    let project = Project::new("");
    std::fs::remove_file(project.at("e3.toml")).unwrap();
    for command in ["run", "start", "status", "ls", "runs"] {
        let said = project.e3(&[command]);
        assert_eq!(said.code, Some(3), "{command}: {said:?}");
        assert!(said.stderr.contains("`e3 init` makes"), "{command}: {said:?}");
    }
}

#[test]
fn a_suggested_command_is_for_the_same_place() {
    let project = Project::new("");
    project.write("deep/e3.toml", "[package]\nname = \"p\"\n[tasks.bad]\ncommand = \"echo; exit 1\"\n");
    let said = project.e3(&["-C", "deep", "-w", "other", "run"]);
    assert!(said.stderr.ends_with("next: e3 -C deep -w other logs bad\n"), "{said:?}");
}

#[test]
fn a_flaky_task_is_tried_again() {
    let project = Project::new("");
    let tally = project.at("tally");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.flaky]\n\
         command = \"echo x >> '{0}'; test $(wc -l < '{0}') -ge 3; echo done > {{output}}\"\n\
         retries = {{ max = 5, backoff = \"1ms\", on = [\"exit:1\"] }}\n",
        tally.display()
    );
    project.write("e3.toml", &pipeline);
    let said = project.done(&["run"]);
    assert_eq!(said.stderr.matches("retry").count(), 2, "{said:?}");
    assert_eq!(project.read("tally"), "x\nx\nx\n");
}
