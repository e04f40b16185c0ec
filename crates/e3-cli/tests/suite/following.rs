//! Runs after a complete one, when files have changed: only these are read, only what they reach is asked about, and what
//! that comes to is right all the same.

use std::fs;

use crate::project::Project;

fn project() -> Project {
    let project = Project::new(
        r#"
        [inputs]
        one = { file = "one.txt" }
        two = { file = "two.txt" }
        all = { dir = "all" }
        [tasks.first]
        command = "cat {one} > {output}"
        [tasks.second]
        command = "sh code.sh {two} > {output}"
        code = ["code.sh"]
        [tasks.listed]
        command = "cd {all} && find . -type f | sort | xargs cat > $OLDPWD/{output}"
        [tasks.joined]
        command = "cat {first} {second} {listed} > {output}"
        [outputs]
        "out.txt" = "joined"
        "#,
    );
    project.write("one.txt", "1");
    project.write("two.txt", "2");
    project.write("code.sh", "cat $1");
    project.write("all/x", "x");
    project.write("all/deep/y", "y");
    assert_eq!(project.run_counts(), (4, 0));
    assert_eq!(project.read("out.txt"), "12yx");
    project
}

/// However soon after each other they come.
#[test]
fn every_edit_is_seen() {
    let project = project();
    for round in 0..12 {
        let text = (round % 7).to_string();
        project.write("one.txt", &text);
        let (executed, _) = project.run_counts();
        assert_eq!(executed, if round < 7 && round != 1 { 2 } else { 0 }, "round {round}");
        assert_eq!(project.read("out.txt"), format!("{text}2yx"));
    }
    project.write("two.txt", "two");
    project.write("all/deep/z", "z");
    assert_eq!(project.run_counts().0, 3);
    fs::remove_file(project.at("all/x")).unwrap();
    project.write("code.sh", "cat $1 $1");
    assert_eq!(project.run_counts().0, 3);
    assert_eq!(project.read("out.txt"), "4twotwoyz");
    // What is written again as it was looks otherwise, and is not.
    project.write("one.txt", "4");
    fs::rename(project.at("all"), project.at("else")).unwrap();
    assert_eq!(project.e3(&["run"]).code, Some(2));
    fs::rename(project.at("else"), project.at("all")).unwrap();
    assert_eq!(project.run_counts(), (0, 4));
}

#[test]
fn what_another_workspace_has_seen_is_not_taken_to_be_known_here() {
    let project = project();
    for (round, text) in ["a", "b", "a", "c", "b"].into_iter().enumerate() {
        project.write("one.txt", text);
        let workspaces: &[&str] = if round % 2 == 0 { &["other"] } else { &["main", "other"] };
        for workspace in workspaces {
            project.done(&["run", "-w", workspace]);
        }
        project.done(&["run"]);
        assert_eq!(project.read("out.txt"), format!("{text}2yx"));
        for workspace in ["main", "other"] {
            assert_eq!(project.done(&["get", "first", "-w", workspace]).stdout, text);
        }
    }
}

#[test]
fn what_was_set_is_kept_and_dropped_as_ever() {
    let project = project();
    project.write("value", "set");
    project.done(&["set", "one", "value"]);
    project.done(&["run"]);
    project.write("one.txt", "edited");
    project.write("two.txt", "edited");
    let said = project.done(&["run"]);
    assert!(said.stderr.contains("input `one` keeps the value that was set"), "{said:?}");
    assert_eq!(project.read("out.txt"), "seteditedyx");
    project.done(&["run", "--reset"]);
    assert_eq!(project.read("out.txt"), "editededitedyx");
    project.done(&["undo"]);
    project.write("two.txt", "again");
    project.done(&["run"]);
    assert_eq!(project.read("out.txt"), "setagainyx");
}

#[test]
fn what_was_set_is_kept_though_nobody_can_tell_any_more_what_it_was_set_for() {
    let project = project();
    project.write("value", "set");
    project.done(&["set", "one", "value"]);
    project.done(&["run"]);
    let before = project.done(&["op", "log", "--json"]).json();
    let package = before["operations"].as_array().unwrap().last().unwrap()["package"]["after"]["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::remove_file(project.at(&format!(".e3/objects/{}/{}", &package[..2], &package[2..]))).unwrap();
    project.write("e3.toml", &project.read("e3.toml").replace("cat {one}", "cat -u {one}"));
    project.done(&["plan"]);
    project.done(&["run"]);
    assert_eq!(project.read("out.txt"), "set2yx");
}

#[test]
fn a_task_that_fails_is_the_only_one_that_is_tried_again() {
    let project = project();
    let code = project.read("code.sh");
    project.write("code.sh", "exit 3");
    for _ in 0..2 {
        assert_eq!(project.e3(&["run"]).code, Some(1));
    }
    project.write("one.txt", "one");
    project.write("code.sh", &code);
    assert_eq!(project.run_counts(), (2, 2));
    assert_eq!(project.read("out.txt"), "one2yx");
}
