//! Changes while something goes on: `set` from another process, `--watch`, `--detach`; entries, resources.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use crate::project::{Project, Said};

fn start(project: &Project, arguments: &[&str]) -> Child {
    project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_value_that_is_set_while_a_run_goes_on_is_part_of_it() {
    let project = Project::new("");
    let gate = project.fifo("gate");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[inputs]\nx = {{ json = 1 }}\n\
         [tasks.first]\ncommand = \"cat {{x}} > {{output}}\"\n\
         [tasks.waits]\ncommand = \"cat {{first}} > {{output}}; read line < '{}'\"\n",
        gate.display()
    );
    project.write("e3.toml", &pipeline);
    let run = start(&project, &["run", "--json", "--events", "events"]);
    // Opened when the task has opened it: it runs, on the old value.
    let mut open = File::options().write(true).open(&gate).unwrap();
    project.done(&["set", "x", "--json", "2"]);
    // The run says so before the task may end.
    let said = |what: &str| fs::read_to_string(project.at("events")).is_ok_and(|text| text.contains(what));
    while !said("task_invalidated") {
        std::thread::yield_now();
    }
    open.write_all(b"go\n").unwrap();
    drop(open);
    // Only when the first reader of the gate is gone is the next one to open it the second.
    while !said("\"superseded\":true") {
        std::thread::yield_now();
    }
    File::options().write(true).open(&gate).unwrap().write_all(b"go\n").unwrap();
    let document = end(run).json();
    assert_eq!((&document["state"], &document["reexecuted"]), (&"completed".into(), &1.into()));
    assert_eq!(project.done(&["get", "waits"]).stdout, "2");
}

/// The lines that a child says, as they come.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap)
}

#[test]
fn watch_runs_again_when_a_file_an_input_or_the_pipeline_changes() {
    let project = Project::new(
        "[inputs]\nraw = { file = \"raw\" }\nx = { json = 1 }\n[tasks.a]\ncommand = \"cat {raw} {x} > {output}\"\n[outputs]\n\"out\" = \"a\"\n",
    );
    project.write("raw", "one ");
    let mut watch = start(&project, &["run", "--watch"]);
    let mut said = lines(&mut watch);
    let mut until_idle = || {
        let part: Vec<String> = said.by_ref().take_while(|line| !line.starts_with("watching")).collect();
        part.join("\n")
    };
    assert!(until_idle().contains("1 ran"));
    assert_eq!(project.read("out"), "one 1");
    project.write("raw", "two ");
    assert!(until_idle().contains("1 ran"));
    assert_eq!(project.read("out"), "two 1");
    project.done(&["set", "x", "--json", "2"]);
    assert!(until_idle().contains("1 ran"));
    assert_eq!(project.read("out"), "two 2");
    let text = project.read("e3.toml");
    project.write("e3.toml", "nonsense");
    project.write("e3.toml", &text.replace("cat {raw}", "cat {raw} {raw}"));
    assert!(until_idle().contains("1 ran"));
    assert_eq!(project.read("out"), "two two 2");
    assert!(Command::new("kill").args(["-s", "INT", &watch.id().to_string()]).status().unwrap().success());
    assert_eq!(end(watch).code, Some(130));
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn a_detached_run_goes_on_by_itself_and_can_be_followed() {
    let project = Project::new("");
    let gate = project.fifo("gate");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.waits]\ncommand = \"read line < '{}'; echo $line > {{output}}\"\n",
        gate.display()
    );
    project.write("e3.toml", &pipeline);
    let run = project.done(&["run", "--detach"]).stdout.trim().to_owned();
    let mut follow = start(&project, &["runs", "follow", &run]);
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(7), "the workspace is held: {said:?}");
    File::options().write(true).open(&gate).unwrap().write_all(b"through\n").unwrap();
    assert_eq!(follow.wait().unwrap().code(), Some(0));
    let said = end(follow);
    assert!(said.stdout.contains("ran     waits"), "{said:?}");
    assert_eq!(project.done(&["get", "waits"]).stdout, "through\n");
    assert_eq!(
        project.done(&["runs", "follow"]).stdout.lines().count(),
        2,
        "one that is over is shown as well"
    );
}

#[test]
fn a_run_that_cannot_begin_in_the_background_says_so_here() {
    let project = Project::new("[tasks.a]\ncommand = \"x {nope}\"\n");
    let said = project.e3(&["run", "--detach"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("there is no input or task `nope`"), "{said:?}");
    assert_eq!(project.e3(&["run", "--detach", "--watch"]).code, Some(2));
}

#[test]
fn a_task_runs_once_per_entry_whatever_the_entries_are_called() {
    let project = Project::new(
        "[inputs]\nin = { dir = \"in\" }\n[tasks.each]\neach = \"in\"\n\
         command = [\"sh\", \"-c\", \"printf '%s:' \\\"$1\\\" > \\\"$2\\\"; cat \\\"$0\\\" >> \\\"$2\\\"\", \"{item}\", \"{item.name}\", \"{output}\"]\n\
         [outputs]\n\"out\" = \"each\"\n",
    );
    let names = ["plain", "with space", "$(touch hacked)", "{raw}", "{item.name}", "ü", "-rf", "a'b\"c"];
    for name in names {
        project.write(&format!("in/{name}"), "content");
    }
    let document = project.done(&["run", "--json"]).json();
    assert_eq!((&document["executed"], &document["total"]), (&8.into(), &8.into()));
    for name in names {
        assert_eq!(project.read(&format!("out/{name}")), format!("{name}:content"));
    }
    project.write("in/plain", "changed");
    assert_eq!(project.run_counts(), (1, 7));
    let said = project.done(&["logs", "each", "--item", "plain"]);
    assert_eq!(said.stdout, "");
    assert_eq!(project.e3(&["logs", "each"]).code, Some(2));
}

#[test]
fn a_name_that_means_something_to_a_shell_is_refused_in_a_shell_command() {
    let project = Project::new(
        "[inputs]\nin = { dir = \"in\" }\n[tasks.each]\neach = \"in\"\ncommand = \"cp {item} {item.name}; cp {item.name} {output}\"\n",
    );
    project.write("in/good.txt", "1");
    assert_eq!(project.run_counts(), (1, 0));
    project.write("in/$(touch hacked)", "2");
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("the entry `$(touch hacked)` cannot stand for {item.name} in a shell command"),
        "{said:?}"
    );
}

#[test]
fn an_entry_can_be_a_folder_and_its_failure_has_a_name() {
    let project = Project::new(
        "[inputs]\nin = { dir = \"in\" }\n[tasks.each]\neach = \"in\"\ncommand = \"cat {item}/x > {output}\"\n",
    );
    project.write("in/a/x", "1");
    project.write("in/b c/y", "2");
    let said = project.e3(&["run", "--keep-going"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("failed each[b c]"), "{said:?}");
    assert!(said.stderr.contains("next: e3 logs each --item 'b c'"), "{said:?}");
    let logs = project.done(&["logs", "each", "--item", "b c", "--stderr"]);
    assert!(logs.stdout.contains("No such file"), "{logs:?}");
}

#[test]
fn limits_come_from_the_pipeline_file_and_the_command_line() {
    let project = Project::new(
        "[run.limits]\nlicense = 2\n[tasks.a]\ncommand = \"echo > {output}\"\nresources = { license = 3, cpu = 2, memory = \"1MiB\" }\n",
    );
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("task `a` needs 3 of `license`, but the limit is 2"), "{said:?}");
    project.done(&["run", "--limit", "license=3"]);
    let too_little = ["run", "--force", "--limit", "memory=512KiB", "--limit", "license=9"];
    assert_eq!(project.e3(&too_little).code, Some(2));
    assert_eq!(project.e3(&["run", "--limit", "cpu=2"]).code, Some(2));
}

#[test]
fn watch_with_restart_takes_up_what_a_change_of_the_pipeline_interrupted() {
    let project = Project::new("");
    for gate in ["one", "two", "three"] {
        project.fifo(gate);
    }
    let pipeline = |gate: &str| {
        format!(
            "[package]\nname = \"test\"\n[tasks.waits]\n\
             command = \"read line < '{}'; echo $line {gate} > {{output}}\"\n[outputs]\n\"out\" = \"waits\"\n",
            project.at(gate).display()
        )
    };
    let open = |gate: &str| File::options().write(true).open(project.at(gate)).unwrap();
    project.write("e3.toml", &pipeline("one"));
    let mut watch = start(&project, &["run", "--watch", "--restart-on-change"]);
    let mut said = lines(&mut watch);
    open("one").write_all(b"go\n").unwrap();
    assert!(said.by_ref().any(|line| line.starts_with("watching")));
    project.write("e3.toml", &pipeline("two"));
    // It runs now. A half-written file is no other pipeline; another one is.
    let held = open("two");
    project.write("e3.toml", "nonsense");
    project.write("e3.toml", &pipeline("three"));
    assert!(said.by_ref().any(|line| line.starts_with("cancelled")));
    drop(held);
    open("three").write_all(b"go\n").unwrap();
    assert!(said.by_ref().any(|line| line.starts_with("watching")));
    assert_eq!(project.read("out"), "go three\n");
    // What is beside the package counts as well.
    project.write("e3.toml", &pipeline("three").replace("\"out\"", "\"other\""));
    assert!(said.by_ref().any(|line| line == "wrote other"));
    assert!(Command::new("kill").args(["-s", "INT", &watch.id().to_string()]).status().unwrap().success());
    assert_eq!(end(watch).code, Some(130));
}

#[test]
fn status_and_why_know_the_entries_of_a_task() {
    let project = Project::new(
        "[inputs]\nin = { dir = \"in\" }\n[tasks.each]\neach = \"in\"\ncommand = \"grep -v bad {item} > {output}\"\n",
    );
    project.write("in/a", "good");
    project.write("in/b", "bad");
    assert_eq!(project.e3(&["run", "--keep-going"]).code, Some(1));
    let status = project.done(&["status", "--json"]).json();
    assert_eq!(status["tasks"]["each"]["state"], "failed");
    assert_eq!(status["tasks"]["each"]["detail"], "entry `b` exited with code 1");
    project.write("in/b", "better");
    let why = project.done(&["why", "each"]).stdout;
    assert!(why.contains("1 of 2 entries to run: b"), "{why}");
    let why = project.done(&["why", "each", "--item", "b"]).stdout;
    assert!(why.contains("input `item` changed") && why.contains("with its file"), "{why}");
    assert_eq!(project.e3(&["why", "each", "--item", "c"]).code, Some(3));
    assert_eq!(project.run_counts(), (1, 1));
    let runs = project.done(&["runs", "--json"]).json();
    let id = |at: usize| runs["runs"][at]["run"].as_str().unwrap().to_owned();
    let diff = project.done(&["diff", &id(1), &id(0)]).stdout;
    assert!(diff.contains("each[b]: failed: exited with code 1 ->"), "{diff}");
    assert!(!diff.contains("each[a]"), "{diff}");
    let executions = project.done(&["executions", "each", "--item", "b", "--json"]).json();
    assert_eq!(executions["executions"].as_array().unwrap().len(), 2);
}

#[test]
fn start_and_plan_obey_the_settings_of_the_pipeline_file() {
    let project = Project::new(
        "[run]\nkeep_going = true\njobs = 1\n[run.limits]\nlicense = 2\n[tasks.a]\ncommand = \"false\"\n\
         [tasks.b]\ncommand = \"echo > {output}\"\nresources = { license = 2 }\n",
    );
    assert_eq!(project.e3(&["run"]).code, Some(1));
    let said = project.e3(&["start", "--force"]);
    assert!(said.stderr.contains("1 ran") && said.stderr.contains("1 failed"), "{said:?}");
    project.write(
        "e3.toml",
        &project.read("e3.toml").replace("license = 2\n[tasks.a]", "license = 1\n[tasks.a]"),
    );
    for command in ["run", "plan", "start"] {
        assert_eq!(project.e3(&[command]).code, Some(2), "{command}");
    }
    project.done(&["plan", "--limit", "license=2", "-j2", "--keep-going"]);
}
