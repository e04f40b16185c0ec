//! Operations and what they make possible: undo, forks, earlier values; runs and executions looked at later.

use crate::project::Project;

fn project() -> Project {
    Project::new(
        "[inputs]\nx = { json = 1 }\n[tasks.double]\ncommand = \"awk '{{print $1 * 2}}' {x} > {output}\"\n",
    )
}

fn x(project: &Project) -> String {
    project.done(&["get", "x"]).stdout
}

#[test]
fn undo_takes_changes_back_one_by_one() {
    let project = project();
    project.run_counts();
    for value in ["2", "3"] {
        project.done(&["set", "x", "--json", value]);
    }
    insta::assert_snapshot!(project.done(&["undo"]).steady(), @r#"
    exit 0
    took back operation 3: set x d4735e3a.. -> 4e074085..
    "#);
    assert_eq!(x(&project), "2");
    project.done(&["undo"]);
    assert_eq!(x(&project), "1");
    let said = project.e3(&["undo"]);
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("operation 1 made workspace `main`"), "{said:?}");
    let log = project.done(&["op", "log", "--json"]).json();
    let kinds: Vec<_> =
        log["operations"].as_array().unwrap().iter().map(|op| op["operation"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["undo", "undo", "set", "set", "deploy"]);
    project.done(&["set", "x", "--json", "5"]);
    project.done(&["undo"]);
    assert_eq!(x(&project), "1", "what comes after an undo is taken back first");
    assert_eq!(project.done(&["op", "log", "-n", "2", "--before", "3"]).stdout.lines().count(), 3);
}

#[test]
fn undo_of_a_deployment_brings_the_package_back() {
    let project = project();
    project.run_counts();
    project.write("e3.toml", &project.read("e3.toml").replace("* 2", "* 4").replace("json = 1", "json = 10"));
    project.run_counts();
    assert_eq!(project.done(&["get", "double"]).stdout, "40\n");
    project.done(&["undo"]);
    assert_eq!(x(&project), "1");
    let started = project.done(&["start", "--json"]).json();
    assert_eq!((&started["executed"], &started["cached"]), (&0.into(), &1.into()));
    assert_eq!(project.done(&["get", "double"]).stdout, "2\n");
}

#[test]
fn a_fork_has_the_same_values_and_goes_its_own_way() {
    let project = project();
    project.run_counts();
    project.done(&["workspace", "fork", "other"]);
    assert_eq!(project.done(&["-w", "other", "get", "double"]).stdout, "2\n");
    project.done(&["-w", "other", "set", "x", "--json", "7"]);
    let counts = project.done(&["-w", "other", "start", "--json"]).json();
    assert_eq!(counts["executed"], 1);
    assert_eq!(
        (x(&project), project.done(&["-w", "other", "get", "x"]).stdout),
        ("1".to_owned(), "7".to_owned())
    );
    let said = project.e3(&["workspace", "fork", "other"]);
    assert_eq!(said.code, Some(7), "{said:?}");
    let names = |project: &Project| {
        let listed = project.done(&["workspace", "list", "--json"]).json();
        let names = listed["workspaces"].as_array().unwrap().iter();
        names.map(|workspace| workspace["workspace"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&project), ["main", "other"]);
    project.done(&["workspace", "remove", "other"]);
    assert_eq!(names(&project), ["main"]);
    assert_eq!(project.e3(&["-w", "other", "get", "x"]).code, Some(3));
    assert_eq!(project.e3(&["workspace", "remove", "other"]).code, Some(3));
}

#[test]
fn a_package_can_be_deployed_by_name_and_inputs_that_were_set_stay() {
    let project = project();
    project.done(&["package", "build"]);
    project.done(&["-w", "other", "workspace", "deploy", "test"]);
    project.done(&["-w", "other", "set", "x", "--json", "4"]);
    let said = project.done(&["-w", "other", "workspace", "deploy", "test@0.0.0"]);
    assert!(said.stderr.contains("input `x`") || said.stderr.contains("deployed"), "{said:?}");
    assert_eq!(project.done(&["-w", "other", "get", "x"]).stdout, "4");
    project.done(&["-w", "other", "workspace", "deploy", "test", "--reset"]);
    assert_eq!(project.done(&["-w", "other", "get", "x"]).stdout, "1");
    assert_eq!(project.e3(&["workspace", "deploy", "nope"]).code, Some(3));
}

#[test]
fn earlier_values_can_be_read() {
    let project = project();
    project.run_counts();
    let at = |project: &Project| {
        let log = project.done(&["op", "log", "-n", "1", "--json"]).json();
        log["operations"][0]["at"].as_u64().unwrap()
    };
    // A moment later by the clock, so that the two operations have two times.
    let first = at(&project);
    let mut last = first;
    let mut value = 1;
    while last == first {
        value += 1;
        project.done(&["set", "x", "--json", &value.to_string()]);
        last = at(&project);
    }
    project.run_counts();
    let then = jiff::Timestamp::from_millisecond(i64::try_from(last - 1).unwrap()).unwrap().to_string();
    assert_ne!(project.done(&["get", "x", "--at", &then]).stdout, x(&project));
    assert_eq!(project.done(&["get", "x", "--at", "0s"]).stdout, x(&project));
    assert_eq!(
        project.done(&["get", "double", "--at", "0s"]).stdout,
        project.done(&["get", "double"]).stdout
    );
    let said = project.e3(&["get", "x", "--at", "1970-01-02T00:00:00Z"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert_eq!(project.e3(&["get", "x", "--at", "yesterday"]).code, Some(2));
}

#[test]
fn runs_and_executions_can_be_looked_at_later() {
    let project = project();
    let first = project.done(&["run", "--json"]).json()["run"].as_str().unwrap().to_owned();
    project.done(&["set", "x", "--json", "2"]);
    project.run_counts();
    let shown = project.done(&["runs", "show", &first]);
    assert!(shown.stdout.contains("ran     double"), "{shown:?}");
    let document = project.done(&["runs", "show", &first, "--json"]).json();
    assert_eq!(document["events"][0]["event"], "run_started");
    assert_eq!(document["state"], "completed");
    let executions = project.done(&["executions", "double", "--json"]).json();
    let labels: Vec<_> = executions["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["main/double", "main/double"]);
    assert_eq!(project.done(&["executions", "-n", "1"]).stdout.lines().count(), 2);
    assert_eq!(project.done(&["executions"]).stdout.lines().count(), 3);
    assert_eq!(project.e3(&["runs", "show", "0199c0de-0000-7000-8000-000000000000"]).code, Some(3));
}
