//! Tasks that do what tasks should not, and what becomes of them. Linux: elsewhere some of it is not promised.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::project::{Project, Said, eventually};

/// A project with one task `bad`, which runs this script; files under `keep` outlive it.
fn project(script: &str, more: &str) -> Project {
    let project = Project::new("");
    let script = script.replace("KEEP", &project.at("keep").display().to_string());
    fs::create_dir(project.at("keep")).unwrap();
    let pipeline = format!(
        "[package]\nname = \"test\"\n[run]\ngrace = \"200ms\"\n[inputs]\nbig = {{ file = \"big\" }}\n\
         [tasks.bad]\ncommand = '''{script}'''\n{more}"
    );
    project.write("big", &"x".repeat(100_000));
    project.write("e3.toml", &pipeline);
    project
}

/// Whether the process whose number is in a file is there, as more than a zombie.
fn is_alive(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_written(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
}

fn start(project: &Project) -> Child {
    project.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_task_that_ignores_the_request_for_an_end_is_killed_after_the_grace() {
    let script = "trap '' TERM INT; echo $$ > KEEP/pid; while :; do sleep 0.01; done";
    let project = project(script, "timeout = \"50ms\"\n");
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("failed bad: stopped after its timeout of 0.050 s"), "{said:?}");
    assert!(!is_alive(&project.at("keep/pid")));
}

#[test]
fn a_daemon_is_ended_with_the_task_that_started_it_and_named() {
    // It has left its session and its parent, and holds the output open.
    let script = "setsid sh -c 'sh -c \"echo \\$\\$ > KEEP/pid; exec sleep 1000\" &' & \
                  while [ ! -s KEEP/pid ]; do sleep 0.01; done; echo done > {output}";
    let project = project(script, "");
    let said = project.done(&["run"]);
    assert!(said.stderr.contains("note    bad  ended what it had left running: sleep (process "), "{said:?}");
    assert!(!is_alive(&project.at("keep/pid")));
    assert_eq!(project.done(&["get", "bad"]).stdout, "done\n");
}

#[test]
fn when_e3_is_killed_its_tasks_die_too() {
    let script = "setsid sh -c 'echo $$ > KEEP/daemon; exec sleep 1000 > /dev/null 2>&1' & \
                  sleep 1000 & echo $! > KEEP/child; echo $$ > KEEP/pid; while :; do sleep 0.01; done";
    let project = project(script, "");
    let mut run = start(&project);
    let files = ["keep/daemon", "keep/child", "keep/pid"].map(|file| project.at(file));
    eventually("the task runs", || files.iter().all(|file| is_written(file)));
    run.kill().unwrap();
    run.wait().unwrap();
    for file in files {
        eventually("it is gone", || !is_alive(&file));
    }
}

#[test]
fn what_a_dead_watchdog_could_not_end_is_ended_by_the_next_run() {
    let script = "[ -e KEEP/again ] || { echo $$ > KEEP/pid; exec sleep 1000; }; echo done > {output}";
    let project = project(script, "");
    let mut run = start(&project);
    let pid = project.at("keep/pid");
    eventually("the task runs", || is_written(&pid));
    let run_id = run.id().to_string();
    let watchdog = Command::new("pgrep").args(["-P", &run_id, "-f", "internal-watchdog"]).output().unwrap();
    let watchdog = String::from_utf8(watchdog.stdout).unwrap();
    assert!(Command::new("kill").args(["-9", watchdog.trim()]).status().unwrap().success());
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(is_alive(&pid), "nobody was left to end it");
    project.write("keep/again", "");
    project.done(&["run"]);
    assert!(!is_alive(&pid));
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn a_log_is_cut_where_the_settings_say_and_the_task_is_not_held_up() {
    let project = project("head -c 3000000 /dev/zero; echo done > {output}", "");
    project.write("e3.toml", &project.read("e3.toml").replace("[run]", "[run]\nlog_limit = \"1MB\""));
    let said = project.done(&["run"]);
    let note = "note    bad  its stdout was cut: the first 1000000 bytes are kept, 2000000 more are not";
    assert!(said.stderr.contains(note), "{said:?}");
    assert_eq!(project.done(&["logs", "bad"]).stdout.len(), 1_000_000);
    let executions = project.done(&["executions", "--json"]).json();
    assert!(executions["executions"][0]["notes"][0].as_str().unwrap().starts_with("its stdout was cut"));
}

#[test]
fn ends_that_are_no_success() {
    for (script, message) in [
        ("exec >&- 2>&-; echo x > {output}; exit 1", "exited with code 1"),
        ("echo half > {output}; exit 3", "exited with code 3"),
        (":", "the task ended with code 0 but wrote no output"),
        ("mkdir {output}", "the task's output is a folder, but it is declared as file"),
        ("ln -s /etc/passwd {output}", "the task's output is a symbolic link, but it is declared as file"),
        ("mkfifo {output}", "the task's output is a device, a socket or a fifo"),
        ("kill -9 $$", "killed by signal 9 (SIGKILL)"),
    ] {
        let project = project(script, "");
        let said = project.e3(&["run"]);
        assert_eq!(said.code, Some(1), "{script}: {said:?}");
        assert!(said.stderr.contains(&format!("failed bad: {message}")), "{script}: {said:?}");
        assert_eq!(project.e3(&["get", "bad"]).code, Some(5), "{script}: there is no half result");
        assert_eq!(project.leftovers(), 0, "{script}");
    }
}

#[test]
fn an_input_that_a_task_alters_is_never_served_to_anybody() {
    let project = project(
        "chmod u+w {big}; printf y | dd of={big} conv=notrunc 2>/dev/null; echo x > {output}",
        "[tasks.good]\ncommand = \"cat {big} > {output}\"\ninputs = [\"wait\"]\n\
         [tasks.wait]\ncommand = \"sleep 0.1; echo > {output}\"\n",
    );
    let said = project.e3(&["run", "--keep-going", "-j1"]);
    let message = "its staged file `inputs/big` was changed";
    assert!(said.stderr.contains(message), "{said:?}");
    // The file of the project is as it was, so its object comes back with the next run.
    project.write("e3.toml", &project.read("e3.toml").replace("printf y", ": y"));
    project.done(&["run"]);
    let good = project.done(&["get", "good"]).stdout;
    assert!(good == "x".repeat(100_000), "no altered byte has gone anywhere");
}

#[test]
fn an_alteration_that_is_hidden_from_the_clock_or_moved_away_is_noticed() {
    // Another size with the old time, and written to and moved away. Should `later` be prepared at the moment at which the
    // file can be written to and has not been, it gets a copy, and the file concerns nobody any more: it has to wait.
    for hide in [
        "touch -r {big} ref; chmod u+w {big}; truncate -s 5000 {big}; touch -r ref {big}; chmod 444 {big}; echo x > {output}",
        "chmod u+w {big}; printf y | dd of={big} conv=notrunc 2>/dev/null; mv {big} away; echo x > {output}",
        "chmod u+w {big}; echo y >> {big}; mv {big} {output}",
    ] {
        let project = project(
            hide,
            "resources = { turn = 1 }\n\
            [tasks.later]\ncommand = \"wc -c < {big} > {output}\"\ninputs = [\"wait\"]\nresources = { turn = 1 }\n\
            [tasks.wait]\ncommand = \"sleep 0.1; echo > {output}\"\n",
        );
        let said = project.e3(&["run", "--keep-going", "-j1", "--limit", "turn=1"]);
        assert!(
            said.stderr.contains("failed bad: its staged file `inputs/big` was changed"),
            "{hide}: {said:?}"
        );
        let later = project.e3(&["get", "later"]);
        assert!(later.code != Some(0) || later.stdout.trim() == "100000", "{hide}: {later:?}");
    }
}

#[test]
fn a_daemon_is_found_at_the_end_of_its_own_task_whatever_ended_before() {
    let daemon = "(setsid sh -c 'echo $$ > KEEP/pid; exec >/dev/null 2>&1; exec sleep 1000' &); \
                  while [ ! -s KEEP/pid ]; do sleep 0.01; done; sleep 0.3; echo done > {output}";
    let project = project(daemon, "[tasks.short]\ncommand = \"sleep 0.1; echo > {output}\"\n");
    let said = project.done(&["run", "-j2"]);
    assert!(said.stderr.contains("note    bad  ended what it had left running: sleep"), "{said:?}");
    assert!(!is_alive(&project.at("keep/pid")));
}

#[test]
fn nobody_is_ended_who_is_not_of_a_task() {
    // A child that this process had before it became e3; somebody who works in a scratch folder, and knows its name.
    let project =
        project("echo $PWD > KEEP/where; while [ ! -e KEEP/go ]; do sleep 0.01; done; echo > {output}", "");
    let run = format!("sleep 1000 & echo $! > keep/before; exec {} run", env!("CARGO_BIN_EXE_e3"));
    let mut run = Command::new("sh")
        .args(["-c", &run])
        .current_dir(project.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let place = project.at("keep/where");
    eventually("the task runs", || is_written(&place));
    let visit = "cd \"$(cat keep/where)\" && echo ready && exec sleep 1000";
    let mut visitor = Command::new("sh")
        .args(["-c", visit])
        .current_dir(project.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    visitor.stdout.take().unwrap().read_exact(&mut [0; 6]).unwrap();
    project.write("keep/go", "");
    assert!(run.wait().unwrap().success());
    assert!(is_alive(&project.at("keep/before")), "it was there before");
    assert!(visitor.try_wait().unwrap().is_none(), "it only looked on");
    visitor.kill().unwrap();
    visitor.wait().unwrap();
    let before = fs::read_to_string(project.at("keep/before")).unwrap();
    assert!(Command::new("kill").arg(before.trim()).status().unwrap().success());
}

#[test]
fn files_that_are_open_where_e3_is_started_are_not_open_in_tasks() {
    let project = project("if (: <&9) 2>/dev/null; then exit 1; fi; echo > {output}", "");
    let run = format!("exec {} run 9</etc/passwd", env!("CARGO_BIN_EXE_e3"));
    assert!(Command::new("sh").args(["-c", &run]).current_dir(project.path()).status().unwrap().success());
}

#[test]
fn something_missing_in_an_output_is_made_again_when_it_is_to_be_put_in_place() {
    let project = Project::new(
        "[tasks.a]\ncommand = \"mkdir {output}; echo 1 > {output}/x\"\noutput = \"dir\"\n[outputs]\n\"out\" = \"a\"\n",
    );
    project.run_counts();
    let hash = e3_types::Hash::of(b"1\n").to_string();
    fs::remove_file(project.at(&format!(".e3/objects/{}/{}", &hash[..2], &hash[2..]))).unwrap();
    let said = project.e3(&["get", "a", "-o", "copy"]);
    assert_eq!(said.code, Some(9));
    assert!(
        said.stderr.contains("the value of `a` is not whole") && said.stderr.contains("verify --repair"),
        "{said:?}"
    );
    fs::remove_dir_all(project.at("out")).unwrap();
    assert_eq!(project.run_counts(), (1, 0));
    assert_eq!(project.read("out/x"), "1\n");
}

#[test]
fn an_output_that_is_lost_is_made_again_inside_the_run_that_needs_it() {
    let project = Project::new(
        "[tasks.a]\ncommand = \"mkdir {output}; echo 1 > {output}/x; head -c 9000 /dev/zero > {output}/y\"\n\
         output = \"dir\"\n\
         [tasks.b]\ncommand = \"cat {a}/x > {output}; wc -c < {a}/y >> {output}\"\ncode = [\"v\"]\n",
    );
    project.write("v", "1");
    project.run_counts();
    // Something in the folder, not the folder itself: nobody looks at that before it is needed.
    let hash = e3_types::Hash::of(&[0; 9000]).to_string();
    fs::remove_file(project.at(&format!(".e3/objects/{}/{}", &hash[..2], &hash[2..]))).unwrap();
    project.write("v", "2");
    let said = project.done(&["run"]);
    assert!(said.stderr.contains("rebuilt a"), "{said:?}");
    assert!(said.stderr.contains("1 ran, 1 cached"), "{said:?}");
}

#[test]
fn limits_are_those_of_the_system() {
    let eat = "exec awk 'BEGIN { x = \"xxxxxxxx\"; while (length(x) < 1e9) x = x x }'";
    for (limits, script, message) in [
        ("memory = \"64MiB\"", eat, "failed bad: "),
        ("open_files = 4", "exec 3<. 4<.; echo x > {output}", "failed bad: "),
        ("cpu_time = \"1s\"", "while :; do :; done", "failed bad: killed by signal 24 (SIGXCPU)"),
    ] {
        let project = project(script, &format!("limits = {{ {limits} }}\ntimeout = \"60s\"\n"));
        let said = project.e3(&["run"]);
        assert_eq!(said.code, Some(1), "{limits}: {said:?}");
        assert!(said.stderr.contains(message), "{limits}: {said:?}");
        assert!(!said.stderr.contains("timeout"), "{limits}: {said:?}");
    }
    // What keeps to them is not bothered, and its end is told as it is.
    let limits = "limits = { open_files = 77, cpu_time = \"1m\", memory = \"1GiB\" }\n";
    let kept = project("ulimit -n > {output}; exit 125", limits);
    assert!(kept.e3(&["run"]).stderr.contains("failed bad: exited with code 125"));
    kept.write("e3.toml", &kept.read("e3.toml").replace("exit 125", "true"));
    kept.done(&["run"]);
    assert_eq!(kept.done(&["get", "bad"]).stdout, "77\n");
}

/// Runs a script without a sandbox, where it must work, and in one; returns what it said there.
fn in_sandbox(script: &str) -> Said {
    let outside = project(script, "").e3(&["run"]);
    assert_eq!(outside.code, Some(0), "without a sandbox it works: {outside:?}");
    project(script, "sandbox = \"strict\"\n").e3(&["run"])
}

#[test]
fn a_sandbox_shows_inputs_code_and_the_system_and_nothing_else() {
    let allowed = "cat {big} code.txt /etc/passwd > /dev/null; date > {output}; echo x > $TMPDIR/x; mkdir sub; \
                   mv $TMPDIR/x sub/; echo x | sort | tee sub/y; ls -l inputs; \
                   test \"$(ls /proc | grep -c '^[0-9]')\" -lt 10";
    let project = project(allowed, "code = [\"code.txt\"]\nsandbox = \"strict\"\n");
    project.write("code.txt", "code");
    project.done(&["run"]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    for script in [
        format!("cat {}; echo > {{output}}", secret.path().display()),
        format!("ls {}; echo > {{output}}", home.path().display()),
        "ls ..; echo > {output}".to_owned(),
        format!("echo x > {}/x; echo > {{output}}", home.path().display()),
        format!("kill -0 {}; echo > {{output}}", std::process::id()),
        format!("chmod 700 {}; echo > {{output}}", home.path().display()),
        format!("touch {}; echo > {{output}}", secret.path().display()),
        format!("[ -e {} ]; echo > {{output}}", home.path().display()),
    ] {
        let said = in_sandbox(&script);
        assert_eq!(said.code, Some(1), "{script}: {said:?}");
    }
}

#[test]
fn a_sandbox_has_no_network_unless_it_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // One connection without a sandbox, and one in a sandbox that has a network.
    let answering = std::thread::spawn(move || {
        let word = |()| {
            let mut word = [0; 5];
            listener.accept().unwrap().0.read_exact(&mut word).unwrap();
            word
        };
        [(); 2].map(word)
    });
    let connect = format!("bash -c 'printf hello > /dev/tcp/127.0.0.1/{port}'; echo > {{output}}");
    let said = in_sandbox(&connect);
    assert_eq!(said.code, Some(1), "{said:?}");
    project(&connect, "sandbox = \"strict\"\nnetwork = true\n").done(&["run"]);
    assert_eq!(answering.join().unwrap(), [*b"hello", *b"hello"]);
}

#[test]
fn a_task_in_a_sandbox_ends_like_any_other() {
    for (script, message) in [
        ("exit 3", "exited with code 3"),
        ("kill -SEGV $$", "killed by signal 11 (SIGSEGV)"),
        ("exec no-such-program", "exited with code 127"),
    ] {
        let said = project(script, "sandbox = \"strict\"\n").e3(&["run"]);
        assert!(said.stderr.contains(&format!("failed bad: {message}")), "{script}: {said:?}");
    }
    // It has its time to clean up, and what it leaves is ended with it.
    let script = "trap 'echo cleaned up; exit 9' TERM; sleep 1000 & (setsid sleep 1001 &) ; echo ready; \
                  while :; do sleep 0.01; done";
    let project = project(script, "sandbox = \"strict\"\ntimeout = \"300ms\"\n");
    project.write("e3.toml", &project.read("e3.toml").replace("200ms", "20s"));
    let said = project.e3(&["run"]);
    assert!(
        said.stderr.contains("stopped after its timeout") && said.stderr.contains("| cleaned up"),
        "{said:?}"
    );
    let left = Command::new("pgrep").args(["-f", "^sleep 1001"]).output().unwrap();
    assert!(left.stdout.is_empty());
}

#[test]
fn a_killed_e3_takes_the_sandbox_with_it() {
    let project = project("echo ready; exec sleep 1002", "sandbox = \"strict\"\n");
    let mut run = start(&project);
    let sleeps = || !Command::new("pgrep").args(["-f", "^sleep 1002"]).output().unwrap().stdout.is_empty();
    eventually("the task runs", sleeps);
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("it is gone", || !sleeps());
}

#[test]
fn a_program_that_a_sandbox_does_not_show_is_told_as_such() {
    let project = project("true", "");
    let tool = project.at("tool");
    fs::copy("/bin/true", &tool).unwrap();
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.bad]\ncommand = [\"{}\", \"{{output}}\"]\nsandbox = \"strict\"\n",
        tool.display()
    );
    project.write("e3.toml", &pipeline);
    let said = project.e3(&["run"]);
    assert_eq!(said.code, Some(8), "{said:?}");
    let message = "its sandbox shows its inputs, its code and the folders of the system";
    assert!(said.stderr.contains("cannot be started") && said.stderr.contains(message), "{said:?}");
    let shown = format!("[run]\nsandbox_readable = [\"{}\"]\n{pipeline}", project.path().display());
    project.write("e3.toml", &shown);
    assert!(project.e3(&["run"]).stderr.contains("wrote no output"), "it ran");
}

#[test]
fn what_hides_from_its_own_task_does_not_reach_the_next_one() {
    // It has cleared its environment, left its group and its folder; it knows where the next task would run.
    let hide = "W=$(pwd); (env -i /usr/bin/setsid /bin/sh -c \"cd /; echo x > KEEP/hidden; while :; do echo evil >> $W/output; \
                echo x > $W/inputs/evil; sleep 0.01; done\" > /dev/null 2>&1 &); \
                while [ ! -e KEEP/hidden ]; do sleep 0.01; done; until mkdir {output} 2> /dev/null; do rm -f {output}; done";
    let next = "output = \"dir\"\n[tasks.next]\ncommand = \"sleep 0.2; ls inputs > {output}; ls {bad}\"\n";
    let project = project(hide, next);
    project.done(&["run", "-j1"]);
    assert_eq!(project.done(&["get", "next"]).stdout, "bad\n", "only what was staged is there");
}

#[test]
fn a_mode_that_a_task_changes_is_put_back() {
    for (change, then) in [
        ("chmod 000 {big}", "[ \"$(stat -c %a {big})\" = 444 ]; cat {big} > /dev/null"),
        ("chmod +x {big}", "[ \"$(stat -c %a {big})\" = 444 ]"),
        ("chmod 444 tool.sh", "./tool.sh; [ \"$(stat -c %a tool.sh)\" = 555 ]"),
        ("chmod 000 {big}; mv {big} away", "cat {big} > /dev/null"),
    ] {
        let later = format!(
            "code = [\"tool.sh\"]\n[tasks.later]\ncommand = '''{then}; cat {{bad}} > {{output}}'''\ninputs = [\"big\"]\n\
             code = [\"tool.sh\"]\n"
        );
        let project = project(&format!("{change}; echo x > {{output}}"), &later);
        project.write(
            "e3.toml",
            &project.read("e3.toml").replace("command = '''", "inputs = [\"big\"]\ncommand = '''"),
        );
        let pipeline = project.read("e3.toml").replacen("inputs = [\"big\"]\ncode", "code", 1);
        project.write("e3.toml", &pipeline);
        project.write("tool.sh", "#!/bin/sh\necho tool\n");
        Command::new("chmod").args(["+x", "tool.sh"]).current_dir(project.path()).status().unwrap();
        project.done(&["run", "-j1"]);
        assert!(project.done(&["verify"]).stdout.contains("all sound"), "{change}");
    }
}

#[test]
fn a_sandbox_works_where_the_way_to_the_repository_leads_through_a_link() {
    let project = project("cat {big} > {output}", "sandbox = \"strict\"\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(project.path(), &link).unwrap();
    let repository = link.join("repository").display().to_string();
    project.done(&["-R", &repository, "run"]);
    let readable = format!("sandbox_readable = [\"{}\"]", link.display());
    project.write("e3.toml", &project.read("e3.toml").replace("[run]", &format!("[run]\n{readable}")));
    project.write(
        "e3.toml",
        &project.read("e3.toml").replace("cat {big}", &format!("cat {}/big", link.display())),
    );
    project.done(&["run"]);
}
