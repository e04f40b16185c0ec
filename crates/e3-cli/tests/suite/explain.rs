//! Why and plan, on the situations that people ask about.

use crate::project::Project;

fn project() -> Project {
    let project = Project::new(
        r#"
[inputs]
raw = { file = "raw.txt" }
data = { dir = "data" }
params = { json = { min = 3, deep = { list = [1, 2] } } }

[tasks.clean]
command = "cat lib/a.sh {raw} > {output}"
code = ["lib"]

[tasks.count]
command = "ls {data} | wc -l > {output}"
env = { LEVEL = "1" }

[tasks.report]
command = "cat {clean} {count} {params} > {output}"
"#,
    );
    project.write("raw.txt", "raw\n");
    project.write("lib/a.sh", "a\n");
    project.write("data/one.txt", "1\n");
    project.write("data/sub/two.txt", "2\n");
    project
}

fn plan(project: &Project) -> Vec<String> {
    let document = project.done(&["plan", "--json"]).json();
    let word = |task: &serde_json::Value| {
        format!("{} {}", task["decision"].as_str().unwrap(), task["task"].as_str().unwrap())
    };
    document["tasks"].as_array().unwrap().iter().map(word).collect()
}

#[test]
fn the_first_run() {
    let project = project();
    insta::assert_snapshot!(project.done(&["plan"]).steady(), @r#"
    exit 0
    WHAT     TASK    WHY
    run      clean   it has not been executed on these inputs
    run      count   it has not been executed on these inputs
    depends  report  only if `clean`, `count` make something that it has not been executed on

    3 tasks: 1 depends, 2 run
    "#);
    insta::assert_snapshot!(project.done(&["why", "clean"]).steady(), @r#"
    exit 0
    clean would run: it has not been executed on these inputs
      it has never been executed in this workspace
    "#);
    assert_eq!(project.run_counts(), (3, 0));
    assert_eq!(plan(&project), ["cached clean", "cached count", "cached report"]);
    insta::assert_snapshot!(project.done(&["why", "clean"]).steady(), @r#"
    exit 0
    clean is up to date: its result is known
      made by execution ID (WHEN)
      which was executed because it had not been executed on these inputs before
      there was no execution before it in this workspace
    "#);
}

#[test]
fn changed_code() {
    let project = project();
    project.run_counts();
    project.write("lib/a.sh", "b\n");
    assert_eq!(plan(&project), ["run clean", "cached count", "depends report"]);
    insta::assert_snapshot!(project.done(&["why", "clean"]).steady(), @r#"
    exit 0
    clean would run: it has not been executed on these inputs
      since execution ID (WHEN):
      - its code changed b9f334d5.. -> f2fcc9ba.., with its file
          changed  lib/a.sh  87428fc5.. -> 02638299..
      everything else is as it was
    "#);
    assert_eq!(project.run_counts(), (2, 1));
}

#[test]
fn one_changed_file_of_a_folder() {
    let project = project();
    project.run_counts();
    project.write("data/sub/two.txt", "22\n");
    project.write("data/three.txt", "3\n");
    assert_eq!(plan(&project), ["cached clean", "run count", "depends report"]);
    insta::assert_snapshot!(project.done(&["why", "count"]).steady(), @r#"
    exit 0
    count would run: it has not been executed on these inputs
      since execution ID (WHEN):
      - input `data` changed 295ac49c.. -> c6c64608.., with its file
          changed  sub/two.txt  53c234e5.. -> f14b4987..
          added    three.txt
      everything else is as it was
    "#);
    assert_eq!(project.run_counts(), (2, 1));
}

#[test]
fn changed_environment_command_and_json() {
    let project = project();
    project.run_counts();
    let text = project.read("e3.toml").replace("LEVEL = \"1\"", "LEVEL = \"2\", NEW = \"x\"");
    project.write("e3.toml", &text.replace("wc -l >", "wc -l  >").replace("[1, 2]", "[1, 5]"));
    assert_eq!(plan(&project), ["cached clean", "run count", "depends report"]);
    insta::assert_snapshot!(project.done(&["why", "count"]).steady(), @r#"
    exit 0
    count would run: it has not been executed on these inputs
      since execution ID (WHEN):
      - the command changed
          from ls {data} | wc -l > {output}
          to   ls {data} | wc -l  > {output}
      - the variable LEVEL changed "1" -> "2"
      - the variable NEW is new: "x"
      everything else is as it was
    "#);
    assert_eq!(project.run_counts(), (2, 1));
    insta::assert_snapshot!(project.done(&["why", "report"]).steady(), @r#"
    exit 0
    report is up to date: its result is known
      made by execution ID (WHEN)
      which was executed because it had not been executed on these inputs before
      since execution ID (WHEN):
      - input `params` changed 60857c9b.. -> a52878fc.., with the package at WHEN (operation 2)
          changed  /deep/list/1  2 -> 5
      everything else is as it was
    "#);
}

#[test]
fn an_evicted_output() {
    let project = project();
    project.run_counts();
    let found = project.done(&["ls", "clean", "--json"]).json();
    let hash = found["datasets"][0]["object"].as_str().unwrap();
    std::fs::remove_file(project.at(&format!(".e3/objects/{}/{}", &hash[..2], &hash[2..]))).unwrap();
    assert_eq!(plan(&project), ["run clean", "cached count", "depends report"]);
    insta::assert_snapshot!(project.done(&["why", "clean"]).steady(), @r#"
    exit 0
    clean would run: its output is no longer in the store
      nothing has changed since execution ID (WHEN)
    "#);
    assert_eq!(project.run_counts(), (1, 2));
}

#[test]
fn blocked_tasks_and_unknown_names() {
    let project = Project::new(
        "[inputs]\nlive = { kind = \"file\" }\n[tasks.a]\ncommand = \"cat {live} > {output}\"\n",
    );
    insta::assert_snapshot!(project.done(&["plan"]).steady(), @r#"
    exit 0
    WHAT     TASK  WHY
    blocked  a     input `live` has no value

    1 task: 1 blocked
    "#);
    insta::assert_snapshot!(project.done(&["why", "a"]).steady(), @r#"
    exit 0
    a cannot run: input `live` has no value
      it has never been executed in this workspace
    "#);
    insta::assert_snapshot!(project.e3(&["why", "b"]).steady(), @r#"
    exit 3
    error: there is no task `b`
    "#);
    assert_eq!(project.e3(&["plan", "b"]).code, Some(4));
    assert_eq!(project.e3(&["why", "a", "--item", "x"]).code, Some(2));
}

#[test]
fn a_dry_run_is_a_plan_and_executes_nothing() {
    let project = project();
    assert_eq!(project.done(&["run", "--dry-run"]).stdout, project.done(&["plan"]).stdout);
    assert_eq!(project.e3(&["start", "--dry-run"]).code, Some(3), "nothing is deployed");
    project.run_counts();
    let said = project.done(&["start", "--dry-run", "--force=clean"]);
    assert!(said.stdout.contains("it is forced"), "{said:?}");
    assert_eq!(project.done(&["runs", "--json"]).json()["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn two_runs_differ_in_what_was_changed_between_them() {
    let project = project();
    let first = project.done(&["run", "--json"]).json()["run"].as_str().unwrap().to_owned();
    project.write("raw.txt", "another\n");
    project.write(
        "e3.toml",
        &project.read("e3.toml").replace("[tasks.count]", "[tasks.counted]").replace("{count}", "{counted}"),
    );
    let second = project.done(&["run", "--json"]).json()["run"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(project.done(&["diff", &first, &second]).steady(), @r#"
    exit 0
    clean: 74109ddb.. -> 2189422a..
      - input `raw` changed 8e5ceeca.. -> 33a7b215..
    count: 53c234e5.. -> not part of it
    counted: not part of it -> 53c234e5..
    report: 1f0efa4d.. -> 08599820..
      - the command changed
          from cat {clean} {count} {params} > {output}
          to   cat {clean} {counted} {params} > {output}
      - input `clean` changed 74109ddb.. -> 2189422a..
      - input `count` is gone
      - input `counted` is new
    0 tasks are the same in both
    "#);
    let document = project.done(&["diff", &first, &second, "--json"]).json();
    assert_eq!(document["tasks"]["clean"]["differences"][0]["name"], "raw");
    let nobody = "0199c0de-0000-7000-8000-000000000000";
    assert_eq!(project.e3(&["diff", &first, nobody]).code, Some(3));
}
