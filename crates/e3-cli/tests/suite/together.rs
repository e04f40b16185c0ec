//! Several commands on one repository at once, and commands that are interrupted.

use std::{
    fs::{self, File},
    io::Write,
    process::{Child, Stdio},
};

use crate::project::{Project, Said, eventually};

/// A task that says that it runs, then waits for somebody to write a line to the fifo.
fn waiting(extra: &str) -> (Project, std::path::PathBuf) {
    let project = Project::new("");
    let fifo = project.fifo("gate");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.waits]\n\
         command = \"echo x >> '{tally}'; read line < '{gate}'; echo $line > {{output}}\"\n{extra}",
        tally = project.at("tally").display(),
        gate = fifo.display()
    );
    project.write("e3.toml", &pipeline);
    (project, fifo)
}

fn start(project: &Project, arguments: &[&str]) -> Child {
    project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Said {
    child.wait_with_output().unwrap().into()
}

/// Returns when the task is at the gate.
fn open_gate(fifo: &std::path::Path) -> File {
    fs::OpenOptions::new().write(true).open(fifo).unwrap()
}

/// Returns when the history says that something runs: it is not told of what takes no time.
fn until_running(project: &Project) {
    eventually("an execution is recorded as running", || {
        let executions = project.done(&["executions", "--json"]).json();
        executions["executions"][0]["state"] == "running"
    });
}

#[test]
fn one_run_of_a_workspace_at_a_time_and_the_second_is_told_who_has_it() {
    let (project, fifo) = waiting("");
    let first = start(&project, &["run"]);
    let pid = first.id();
    let mut gate = open_gate(&fifo);
    for command in ["run", "start"] {
        let second = project.e3(&[command]);
        assert_eq!(second.code, Some(7), "{second:?}");
        assert!(
            second.stderr.contains(&format!("workspace `main` is held by process {pid} on ")),
            "{second:?}"
        );
    }
    let status = project.done(&["status", "--json"]).json();
    assert_eq!(status["tasks"]["waits"]["state"], "running");
    gate.write_all(b"go\n").unwrap();
    drop(gate);
    let first = end(first);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(project.run_counts(), (0, 1));
}

#[test]
fn two_workspaces_at_once_execute_a_common_task_once() {
    let (project, fifo) = waiting("[tasks.after]\ncommand = \"cat {waits} > {output}\"\n");
    let one = start(&project, &["-w", "one", "run", "--json"]);
    let mut gate = open_gate(&fifo);
    let two = start(&project, &["-w", "two", "run", "--json"]);
    gate.write_all(b"go\n").unwrap();
    drop(gate);
    let (one, two) = (end(one), end(two));
    assert_eq!((one.code, two.code), (Some(0), Some(0)), "{one:?} {two:?}");
    assert_eq!(project.read("tally"), "x\n", "the common task ran once");
    for workspace in ["one", "two"] {
        assert_eq!(project.done(&["-w", workspace, "get", "after"]).stdout, "go\n");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind_and_goes_on() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (project, fifo) = waiting("[tasks.first]\ncommand = \"echo 1 > {output}\"\n");
        let run = start(&project, &["run", "--keep-going", "--json"]);
        let gate = open_gate(&fifo);
        let kill =
            std::process::Command::new("kill").args(["-s", signal, &run.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let run = end(run);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert_eq!(run.json()["state"], "cancelled");
        drop(gate);
        assert_eq!(project.leftovers(), 0);
        let again = start(&project, &["run", "--json"]);
        open_gate(&fifo).write_all(b"go\n").unwrap();
        assert_eq!(end(again).json()["state"], "completed");
    }
}

#[test]
fn a_killed_run_is_recorded_as_lost_and_its_finished_work_is_used() {
    let (project, fifo) = waiting("[tasks.a_first]\ncommand = \"echo 1 > {output}\"\n");
    let mut run = start(&project, &["run", "-j1"]);
    let gate = open_gate(&fifo);
    until_running(&project);
    run.kill().unwrap();
    run.wait().unwrap();
    drop(gate);
    let runs = project.done(&["runs", "--json"]).json();
    assert_eq!(runs["runs"][0]["state"], "lost");
    let executions = project.done(&["executions", "--json"]).json();
    assert_eq!(executions["executions"][0]["state"], "lost", "{executions}");
    assert!(project.leftovers() > 0, "a killed process cannot clean up");
    assert_eq!(
        end(start(&project, &["logs", "-f", "waits"])).code,
        Some(0),
        "nobody writes to that log any more"
    );
    let again = start(&project, &["run", "--json"]);
    open_gate(&fifo).write_all(b"go\n").unwrap();
    let document = end(again).json();
    assert_eq!((&document["executed"], &document["cached"]), (&1.into(), &1.into()));
    assert_eq!(project.leftovers(), 0);
}

#[test]
fn logs_can_be_followed_while_a_task_runs() {
    let project = Project::new("");
    let fifo = project.fifo("gate");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.waits]\n\
         command = \"echo before; read line < '{}'; echo after; echo > {{output}}\"\n",
        fifo.display()
    );
    project.write("e3.toml", &pipeline);
    let run = start(&project, &["run"]);
    let mut gate = open_gate(&fifo);
    until_running(&project);
    let follow = start(&project, &["logs", "-f", "waits"]);
    assert_eq!(project.done(&["logs", "waits"]).stdout, "before\n");
    gate.write_all(b"go\n").unwrap();
    drop(gate);
    assert_eq!(end(run).code, Some(0));
    assert_eq!(end(follow).stdout, "before\nafter\n");
}

#[test]
fn many_first_commands_at_once_make_one_repository() {
    let project = Project::new("[tasks.a]\ncommand = \"echo 1 > {output}\"\n");
    let workspaces: Vec<_> = (0..8).map(|number| format!("w{number}")).collect();
    let runs: Vec<_> =
        workspaces.iter().map(|name| start(&project, &["-w", name, "run", "--json"])).collect();
    let mut executed = 0;
    for run in runs {
        let said = end(run);
        assert_eq!(said.code, Some(0), "{said:?}");
        executed += said.json()["executed"].as_u64().unwrap();
    }
    assert_eq!(executed, 1);
    assert_eq!(project.leftovers(), 0);
}

/// The processors on which each thread of a process may run.
#[cfg(target_os = "linux")]
fn processors_of_threads(process: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    // One may end just now.
    let statuses =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok());
    statuses
        .map(|status| {
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            list.unwrap().trim().to_owned()
        })
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_starts_tasks_keeps_to_one_processor_and_neither_its_tasks_nor_the_other_threads_do() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let project = Project::new("");
    let gate = project.fifo("gate");
    let mut pipeline = "[package]\nname = \"test\"\n".to_owned();
    // Outputs that are large enough to be stored by other threads, which are started for that.
    for number in 0..6 {
        pipeline +=
            &format!("[tasks.large{number}]\ncommand = \"head -c 30{number}0000 /dev/zero > {{output}}\"\n");
    }
    pipeline += "[tasks.waits]\ncommand = \"ls {large0} {large1} {large2} {large3} {large4} {large5}; \
                 grep Cpus_allowed_list /proc/self/status > {output}; read line < ";
    pipeline += &format!("'{}'\"\n", gate.display());
    project.write("e3.toml", &pipeline);
    // As many processors as there are such threads, if this machine has them.
    let mut two = CpuSet::new();
    let all = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|at| all.is_set(*at)).take(2).for_each(|at| two.set(at));
    let run = std::thread::scope(|scope| {
        let restricted = scope.spawn(|| {
            sched_setaffinity(None, &two).unwrap();
            start(&project, &["run", "-j6"])
        });
        restricted.join().unwrap()
    });
    let mut open = open_gate(&gate);
    let of_process = fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    let both = of_process.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let is_one = |list: &&String| *list != both && list.parse::<u16>().is_ok();
    let are_apart = || {
        let threads = processors_of_threads(run.id());
        let alone = threads.iter().filter(is_one).count();
        let others = threads.iter().filter(|list| **list == both).count();
        (1..=2).contains(&alone) && alone + others == threads.len()
    };
    // A thread that has just been started has not said yet that it may use both; one that is idle ends some seconds later.
    assert!(two.count() < 2 || (0..1000).any(|_| are_apart()), "{:?}", processors_of_threads(run.id()));
    writeln!(open).unwrap();
    drop(open);
    let said = end(run);
    assert_eq!(said.code, Some(0), "{said:?}");
    let told = project.done(&["get", "waits"]).stdout;
    assert_eq!(told.trim_end(), format!("Cpus_allowed_list:\t{both}"));
}
