//! Eight processes at once on one repository: only documented conflicts, no lost update, nothing corrupt.
//!
//! `E3_HAMMER_ROUNDS` says how often each of them goes through everything.

use std::{collections::BTreeMap, thread};

use crate::project::{Project, number_from_environment};

const WORKERS: usize = 8;
const WORKSPACES: usize = 4;

/// What one worker did.
#[derive(Default)]
struct Tally {
    commands: u64,
    conflicts: u64,
    /// Sets that were acknowledged.
    sets: u64,
}

/// A worker: sets an input that is its own to 1, 2, 3... and looks at everything in between.
fn work(project: &Project, worker: usize, rounds: u64) -> Tally {
    let workspace = format!("w{}", worker % WORKSPACES);
    let mine = format!("c{}", worker / WORKSPACES);
    let mut tally = Tally::default();
    // 7: held by another process, or in conflict with something that is there.
    let mut e3 = |arguments: &[&str], may_conflict: bool| {
        let all: Vec<&str> = ["-w", &workspace].iter().copied().chain(arguments.iter().copied()).collect();
        let said = project.e3(&all);
        tally.commands += 1;
        match said.code {
            Some(0) => {}
            Some(7) if may_conflict => tally.conflicts += 1,
            _ => panic!("{all:?}: {said:?}"),
        }
        said
    };
    let archive = project.at(&format!("archive{worker}.zip")).display().to_string();
    for round in 1..=rounds {
        let value = round.to_string();
        e3(&["set", &mine, "--json", &value], false);
        assert_eq!(e3(&["get", &mine], false).stdout, value, "an acknowledged value was lost");
        e3(&["start", "--progress", "none"], true);
        e3(&["status"], false);
        e3(&["runs"], false);
        e3(&["package", "export", "hammer", "-o", &archive], false);
        e3(&["package", "import", &archive], true);
        assert_eq!(e3(&["get", &mine], false).stdout, value);
    }
    tally.sets = rounds;
    tally
}

#[test]
fn eight_processes_on_one_repository() {
    let rounds = number_from_environment("E3_HAMMER_ROUNDS", 3);
    let project = Project::new("");
    project.write(
        "e3.toml",
        "[package]\nname = \"hammer\"\n[inputs]\nc0 = { json = 0 }\nc1 = { json = 0 }\n\
         [tasks.a]\ncommand = \"cat {c0} > {output}\"\n[tasks.b]\ncommand = \"cat {c1} > {output}\"\n\
         [tasks.sum]\ncommand = \"echo $(($(cat {a}) + $(cat {b}))) > {output}\"\n",
    );
    project.done(&["package", "build"]);
    for workspace in 0..WORKSPACES {
        project.done(&["-w", &format!("w{workspace}"), "run"]);
    }
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let work = |worker| {
            scope.spawn({
                let project = &project;
                move || work(project, worker, rounds)
            })
        };
        let workers: Vec<_> = (0..WORKERS).map(work).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut sets: BTreeMap<usize, u64> = BTreeMap::new();
    for (worker, tally) in tallies.iter().enumerate() {
        *sets.entry(worker % WORKSPACES).or_default() += tally.sets;
    }
    for workspace in 0..WORKSPACES {
        let name = format!("w{workspace}");
        let log = project.done(&["-w", &name, "op", "log", "--json", "-n", "1000000"]).json();
        let log = log["operations"].as_array().unwrap();
        let told = log.iter().filter(|operation| operation["operation"] == "set").count();
        assert_eq!(told as u64, sets[&workspace], "every acknowledged set is in the history, once");
        project.done(&["-w", &name, "start"]);
        let sum = project.done(&["-w", &name, "get", "sum"]).stdout;
        assert_eq!(sum.trim(), (2 * rounds).to_string());
    }
    assert!(project.done(&["verify"]).stdout.contains("all sound"));
    assert_eq!(project.leftovers(), 0);
    let (commands, conflicts): (u64, u64) = tallies.iter().fold((0, 0), |(commands, conflicts), tally| {
        (commands + tally.commands, conflicts + tally.conflicts)
    });
    println!(
        "{WORKERS} processes, {commands} commands, {conflicts} documented conflicts (exit code 7): nothing lost"
    );
}
