//! What people do every day.

use std::fs;

use crate::project::Project;

/// `raw` is cleaned, counted and sorted, and a report joins both.
fn report() -> Project {
    let project = Project::new(
        r#"
        [inputs]
        raw = { file = "data/raw.txt" }
        [tasks.clean]
        command = "sh clean.sh {raw} > {output}"
        code = ["clean.sh"]
        [tasks.counted]
        command = "wc -l < {clean} | tr -d ' ' > {output}"
        [tasks.sorted]
        command = "sort {clean} > {output}"
        env = { LC_ALL = "C" }
        [tasks.report]
        command = "cat {counted} {sorted} > {output}; echo made the report"
        [outputs]
        "out/report.txt" = "report"
        "#,
    );
    project.write("data/raw.txt", "b\n#\na\n");
    project.write("clean.sh", "grep -v '#' \"$1\" # drops comments\n");
    project
}

#[test]
fn a_first_run_makes_everything_and_a_second_one_nothing() {
    let project = report();
    let said = project.done(&["run", "-j1"]);
    assert_eq!(project.read("out/report.txt"), "2\na\nb\n");
    insta::assert_snapshot!(said.steady(), @r"
    exit 0
    [1/4] ran     clean  TIME
    [2/4] ran     counted  TIME
    [3/4] ran     sorted  TIME
    [4/4] ran     report  TIME
    wrote out/report.txt
    completed: 4 tasks, 4 ran, 0 cached in TIME
    ");
    assert_eq!(project.run_counts(), (0, 4));
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn a_change_of_code_re_runs_what_it_reaches_and_changing_back_runs_nothing() {
    let project = report();
    assert_eq!(project.run_counts(), (4, 0));
    let code = project.read("clean.sh");
    project.write("clean.sh", &code.replace("drops", "Drops"));
    assert_eq!(project.run_counts(), (1, 3), "another comment, the same output: early cut-off");
    project.write("clean.sh", &code.replace("'#'", "'a'"));
    assert_eq!(project.run_counts(), (4, 0));
    assert_eq!(project.read("out/report.txt"), "2\n#\nb\n");
    project.write("clean.sh", &code);
    assert_eq!(project.run_counts(), (0, 4));
    assert_eq!(project.read("out/report.txt"), "2\na\nb\n");
}

#[test]
fn outputs_that_are_gone_are_restored_without_executing_anything() {
    let project = report();
    project.done(&["run"]);
    fs::remove_dir_all(project.at("out")).unwrap();
    assert_eq!(project.run_counts(), (0, 4));
    assert_eq!(project.read("out/report.txt"), "2\na\nb\n");
}

#[test]
fn an_output_that_somebody_else_wrote_is_left_alone() {
    let project = report();
    project.write("out/report.txt", "my own work\n");
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.stderr.contains("`out/report.txt` is there and e3 did not write it"), "{said:?}");
    assert_eq!(project.read("out/report.txt"), "my own work\n");
    project.done(&["run", "--force-outputs"]);
    assert_eq!(project.read("out/report.txt"), "2\na\nb\n");
    project.write("out/report.txt", "edited\n");
    assert_eq!(project.e3(&["run"]).code, Some(7), "also when it was edited since");
    project.write("out/report.txt", "2\na\nb\n");
    project.done(&["run"]);
}

#[test]
fn folders_and_links_can_be_outputs() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new(
        r#"
        [tasks.parts]
        command = "mkdir {output}; echo 1 > {output}/one; echo 2 > {output}/two"
        output = "dir"
        [tasks.file]
        command = "echo linked > {output}"
        [outputs]
        "out/parts" = "parts"
        "out/file" = { from = "file", link = true }
        "#,
    );
    project.done(&["run"]);
    assert_eq!(project.read("out/parts/two"), "2\n");
    assert_eq!(fs::metadata(project.at("out/file")).unwrap().permissions().mode() & 0o777, 0o444);
    let pipeline = project.read("e3.toml").replace("; echo 2 > {output}/two", "; echo 3 > {output}/three");
    project.write("e3.toml", &pipeline);
    project.done(&["run"]);
    assert_eq!(project.read("out/parts/three"), "3\n");
    assert!(!project.at("out/parts/two").exists());
}

#[test]
fn init_makes_a_project_that_works() {
    let project = Project::new("");
    let said = project.done(&["init", "new"]);
    assert!(said.stderr.contains("next: e3 -C new run"), "{said:?}");
    assert_eq!(project.read("new/.gitignore"), ".e3/\n");
    project.done(&["-C", "new", "run"]);
    assert_eq!(project.read("new/out/counts.txt").lines().count(), 3);
    let again = project.e3(&["init", "new"]);
    assert_eq!(again.code, Some(7), "{again:?}");
}

#[test]
fn values_are_set_got_and_kept() {
    let project = Project::new(
        r#"
        [inputs]
        text = { file = "text.txt" }
        params = { json = { n = 1 } }
        live = { kind = "file" }
        [tasks.all]
        command = "cat {text} {params} {live} > {output}"
        "#,
    );
    project.write("text.txt", "text\n");
    let blocked = project.e3(&["run"]);
    assert_eq!(blocked.code, Some(5), "{blocked:?}");
    assert!(blocked.stderr.contains("input `live` has no value; next: e3 set live FILE"), "{blocked:?}");
    project.write("live.txt", "live\n");
    project.done(&["set", "live", "live.txt"]);
    project.done(&["run"]);
    assert_eq!(project.done(&["get", "all"]).stdout, "text\n{\"n\":1}live\n");

    project.done(&["set", "params", "--json", "{ \"n\": 2.0 }"]);
    let said = project.done(&["run"]);
    assert!(!said.stderr.contains("keeps"), "the package was not deployed again: {said:?}");
    assert_eq!(project.done(&["get", "all"]).stdout, "text\n{\"n\":2}live\n");
    project.done(&["set", "text", "live.txt"]);
    let said = project.done(&["run"]);
    assert!(said.stderr.contains("input `text` keeps the value that was set"), "{said:?}");
    let again = project.done(&["run"]);
    assert!(again.stderr.contains("input `text` keeps the value that was set"), "nothing to do: {again:?}");
    project.write("e3.toml", &project.read("e3.toml").replace("cat", "cat -u"));
    let said = project.done(&["run"]);
    assert!(said.stderr.contains("input `params` keeps the value that was set"), "{said:?}");
    assert_eq!(project.done(&["get", "all"]).stdout, "live\n{\"n\":2}live\n");
    assert_eq!(project.e3(&["run", "--reset"]).code, Some(5), "`live` has no value any more");
    project.done(&["get", "text", "-o", "got.txt"]);
    assert_eq!(project.read("got.txt"), "text\n");
    assert_eq!(project.e3(&["get", "text", "-o", "got.txt"]).code, Some(7), "nothing is overwritten");

    let said = project.e3(&["set", "all", "live.txt"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("`all` is the output of task `all`: only inputs can be set"), "{said:?}");
    let said = project.e3(&["set", "txet", "live.txt"]);
    assert_eq!(said.code, Some(3));
    assert!(said.stderr.contains("did you mean `text`?"), "{said:?}");
}

#[test]
fn a_pipeline_that_was_read_before_is_read_again_if_its_tasks_are_gone() {
    let project = Project::new(
        "[inputs]\ntext = { file = \"text.txt\" }\n[tasks.a]\ncommand = \"cat {text} {text} > {output}\"\n\
         [outputs]\n\"out.txt\" = \"a\"\n",
    );
    project.write("text.txt", "one\n");
    project.done(&["run"]);
    project.done(&["run"]);
    // All objects: the package, the task, the file, the output.
    std::fs::remove_dir_all(project.at(".e3/objects")).unwrap();
    std::fs::create_dir(project.at(".e3/objects")).unwrap();
    assert_eq!(project.run_counts(), (1, 0));
    // The task alone.
    let task = e3_types::Hash::of(&task_object(&project));
    project.write("text.txt", "two\n");
    let path = object_path(&project, &task.to_string());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(project.run_counts(), (1, 0));
    assert_eq!(project.read("out.txt"), "two\ntwo\n");
    assert!(path.exists());
}

#[test]
fn a_value_in_the_pipeline_that_a_task_has_spoilt_is_there_again() {
    let project = Project::new(
        "[inputs]\nparams = { json = { k = 1 } }\n\
         [tasks.t]\ncommand = \"sh x.sh {params} > {output}\"\ncode = [\"x.sh\"]\n",
    );
    project.write("x.sh", "chmod u+w $1; echo '{}' > $1; cat $1");
    let said = project.e3(&["run"]);
    assert!(said.stderr.contains("staged file `inputs/params` was changed"), "{said:?}");
    project.write("x.sh", "cat $1");
    assert_eq!(project.run_counts(), (1, 0));
    assert_eq!(project.done(&["get", "t"]).stdout, "{\"k\":1}");
    let params = object_path(&project, &e3_types::Hash::of(b"{\"k\":1}").to_string());
    std::fs::remove_file(&params).unwrap();
    project.write("x.sh", "cat $1 $1");
    for ask in [&["plan"][..], &["run", "--dry-run"]] {
        project.done(ask);
        assert!(params.exists(), "{ask:?} looks for it");
        std::fs::remove_file(&params).unwrap();
    }
    assert_eq!(project.run_counts(), (1, 0));
}

fn object_path(project: &Project, hash: &str) -> std::path::PathBuf {
    project.at(".e3/objects").join(&hash[..2]).join(&hash[2..])
}

fn task_object(project: &Project) -> Vec<u8> {
    let folders = std::fs::read_dir(project.at(".e3/objects")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let mut contents = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let is_task =
        |text: &Vec<u8>| text.starts_with(b"{") && text.windows(9).any(|part| part == b"\"command\"");
    contents.find(is_task).expect("there is a task object")
}

#[test]
fn standard_input_can_be_a_value() {
    use std::{io::Write, process::Stdio};
    let project = Project::new(
        "[inputs]\nlive = { kind = \"file\" }\n[tasks.a]\ncommand = \"cat {live} > {output}\"\n",
    );
    assert_eq!(project.e3(&["run"]).code, Some(5));
    let mut child = project.command(&["set", "live", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe\n").unwrap();
    assert!(child.wait().unwrap().success());
    project.done(&["run"]);
    assert_eq!(project.done(&["get", "a"]).stdout, "from a pipe\n");
}

#[test]
fn status_ls_logs_and_runs_tell_what_there_is() {
    let project = report();
    let said = project.e3(&["status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    project.done(&["run"]);
    let status = project.done(&["status", "--json"]).json();
    assert_eq!(status["tasks"]["report"]["state"], "up to date");
    project.write("data/other.txt", "c\n");
    project.done(&["set", "raw", "data/other.txt"]);
    let status = project.done(&["status", "--json"]).json();
    assert_eq!(status["tasks"]["clean"]["state"], "out of date");
    let ls = project.done(&["ls", "clean", "--json"]).json();
    let paths: Vec<_> =
        ls["datasets"].as_array().unwrap().iter().map(|set| set["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["clean", "clean.code"]);
    assert_eq!(project.done(&["logs", "report"]).stdout, "made the report\n");
    let runs = project.done(&["runs", "--json"]).json();
    let run = runs["runs"][0]["run"].as_str().unwrap().to_owned();
    assert_eq!(runs["runs"][0]["state"], "completed");
    assert_eq!(project.done(&["logs", "report", "--run", &run]).stdout, "made the report\n");
    assert_eq!(project.e3(&["logs", "rebort"]).code, Some(3));
    assert_eq!(project.e3(&["ls", "nothing"]).code, Some(3));
}

#[test]
fn json_is_all_that_is_on_standard_output_errors_too() {
    let project = report();
    for arguments in
        [&["run", "--json"][..], &["--json", "start"], &["start", "--json"], &["package", "list", "--json"]]
    {
        assert!(
            project.done(arguments).json()["schema"].as_str().unwrap().starts_with("e3."),
            "{arguments:?}"
        );
    }
    for (arguments, code) in [
        (&["get", "nothing", "--json"][..], 3),
        (&["run", "nothing", "--json"], 4),
        (&["run", "--no", "--json"], 2),
    ] {
        let said = project.e3(arguments);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert_eq!(said.json()["error"]["exit_code"], code);
    }
}

#[test]
fn events_are_written_as_json_lines() {
    let project = report();
    project.done(&["run", "-q", "--events", "events.jsonl"]);
    let text = project.read("events.jsonl");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_ended");
    let said = project.done(&["run", "-q", "--events", "-"]);
    assert_eq!((said.stdout.lines().count(), said.stderr.as_str()), (2, ""), "there is nothing to do");
}

#[test]
fn a_folder_is_found_from_below_and_named_with_c() {
    let project = report();
    project.write("deep/er/file", "");
    assert_eq!(project.done(&["-C", "deep", "-C", "er", "run", "--json"]).json()["total"], 4);
    assert!(project.at("out/report.txt").exists());
    let said = project.e3(&["-C", "nowhere", "run"]);
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
fn only_what_was_passed_on_is_part_of_the_identity() {
    let project = Project::new(
        r#"
        [tasks.a]
        command = "echo ${WORD:-unset} ${OTHER:-unset} > {output}"
        pass_env = ["WORD"]
        "#,
    );
    let run = |word: &str| {
        let output =
            project.command(&["run", "--json"]).env("WORD", word).env("OTHER", word).output().unwrap();
        crate::project::Said::from(output).json()["executed"].as_u64().unwrap()
    };
    assert_eq!((run("one"), run("two"), run("one")), (1, 1, 0));
    assert_eq!(project.done(&["get", "a"]).stdout, "one unset\n");
}

#[test]
fn an_output_that_e3_wrote_can_be_replaced_by_any_workspace_and_after_a_touch() {
    let project = report();
    project.done(&["run"]);
    project.write("data/raw.txt", "c\n");
    project.done(&["-w", "other", "run"]);
    assert_eq!(project.read("out/report.txt"), "1\nc\n");
    let output = fs::File::options().write(true).open(project.at("out/report.txt")).unwrap();
    output.set_modified(std::time::UNIX_EPOCH).unwrap();
    project.write("data/raw.txt", "d\n");
    project.done(&["run"]);
    assert_eq!(project.read("out/report.txt"), "1\nd\n");
}

#[test]
fn the_folder_of_a_task_can_be_kept() {
    let project = report();
    let said = project.done(&["run", "--keep-scratch", "report"]);
    assert!(said.stderr.contains("scratch folders are kept in "), "{said:?}");
    assert_eq!(project.run_counts(), (0, 4));
    let kept: Vec<_> = fs::read_dir(project.at(".e3/kept")).unwrap().collect();
    assert_eq!(kept.len(), 4);
    assert!(kept.iter().all(|folder| folder.as_ref().unwrap().path().join("work/inputs").is_dir()));
}

#[test]
fn a_reader_that_has_seen_enough_is_not_an_error() {
    use std::process::Stdio;
    let project = Project::new("[tasks.a]\ncommand = \"head -c 3000000 /dev/zero > {output}\"\n");
    project.done(&["run"]);
    let mut child =
        project.command(&["get", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = crate::project::Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}
