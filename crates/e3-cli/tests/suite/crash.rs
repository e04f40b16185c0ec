//! Runs that are killed at random moments, again and again, and what is left of them.
//!
//! `E3_CRASH_ROUNDS` says how often each way to kill is tried, `E3_CRASH_SEED` which moments are chosen; both are printed.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::project::{Project, eventually, number_from_environment, processes_in};

const LAYERS: usize = 10;
const WIDTH: usize = 30;
/// How many events a run has in which everything is executed: two of each task, and its own two.
const EVENTS: u64 = 2 * (LAYERS * WIDTH + 1) as u64 + 2;

/// Ten layers of thirty tasks, each of which reads three of the layer before, and one that joins them.
fn pipeline() -> String {
    let mut text =
        "[package]\nname = \"layers\"\n[run]\njobs = 4\n[inputs]\nseed = { json = 7 }\n".to_owned();
    for layer in 0..LAYERS {
        for place in 0..WIDTH {
            let reads: Vec<String> = match layer {
                0 => vec!["{seed}".to_owned()],
                _ => [0, 1, 4]
                    .iter()
                    .map(|step| format!("{{t{}_{}}}", layer - 1, (place + step) % WIDTH))
                    .collect(),
            };
            text += &format!(
                "[tasks.t{layer}_{place}]\ncommand = \"cat {} | cksum > {{output}}; echo {layer} {place} >> {{output}}\"\n",
                reads.join(" ")
            );
        }
    }
    let last: Vec<String> = (0..WIDTH).map(|place| format!("{{t{}_{place}}}", LAYERS - 1)).collect();
    text + &format!("[tasks.join]\ncommand = \"cat {} > {{output}}\"\n", last.join(" "))
}

fn project() -> Project {
    let project = Project::new("");
    project.write("e3.toml", &pipeline());
    project
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victims {
    /// The process of e3: its watchdog ends the tasks.
    Alone,
    /// The process of e3, its watchdog and all tasks.
    All,
}

impl Victims {
    fn kill(self, run: &Child) {
        let mut pids = vec![run.id()];
        if matches!(self, Self::All) {
            // Stopped first, so that it starts no others while they are looked for.
            signal("STOP", &pids);
            let mut next = 0;
            while next < pids.len() {
                let below = Command::new("pgrep").args(["-P", &pids[next].to_string()]).output().unwrap();
                pids.extend(
                    String::from_utf8(below.stdout).unwrap().lines().map(|pid| pid.parse::<u32>().unwrap()),
                );
                next += 1;
            }
        }
        signal("KILL", &pids);
    }
}

fn signal(signal: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // One that has ended meanwhile is fine.
    let _some_may_be_gone =
        Command::new("kill").args(["-s", signal]).args(&pids).stderr(Stdio::null()).status().unwrap();
}

/// What the events in a file say: how many there are, which tasks were started, and which were executed to their end.
#[derive(Default)]
struct Told {
    lines: u64,
    started: BTreeSet<String>,
    finished: BTreeSet<String>,
    completed: bool,
}

fn told(events: &Path) -> Told {
    let mut told = Told::default();
    let text = fs::read_to_string(events).unwrap_or_default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let task = || event["task"].as_str().unwrap().to_owned();
        told.lines += 1;
        match event["event"].as_str().unwrap() {
            "task_started" => drop(told.started.insert(task())),
            "task_completed" if event["cached"] == false => drop(told.finished.insert(task())),
            "run_ended" => told.completed = event["state"] == "completed",
            _ => {}
        }
    }
    told
}

fn survives(victims: Victims) {
    let rounds = number_from_environment("E3_CRASH_ROUNDS", 6);
    let seed = number_from_environment("E3_CRASH_SEED", 20_261_126);
    println!("{victims:?}: {rounds} rounds with seed {seed}");
    let undisturbed = project();
    undisturbed.done(&["run"]);
    let expected = undisturbed.done(&["get", "join"]).stdout;

    let mut random = Random(seed);
    let (mut kills, mut repositories) = (0, 0);
    while kills < rounds {
        repositories += 1;
        let project = project();
        let events = project.at("events");
        let mut finished: BTreeSet<String> = BTreeSet::new();
        loop {
            drop(fs::remove_file(&events));
            let arguments = ["run", "--progress", "none", "--events", "events"];
            let mut run = project.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
            if kills < rounds {
                // Up to a little more than there are: some runs come to their end.
                let (moment, spins) = (random.below(EVENTS + EVENTS / 10), random.below(20_000));
                eventually("it has come that far", || {
                    told(&events).lines >= moment || run.try_wait().unwrap().is_some()
                });
                (0..spins).for_each(|_| std::hint::spin_loop());
                if run.try_wait().unwrap().is_none() {
                    victims.kill(&run);
                    kills += 1;
                }
            }
            let ended = run.wait().unwrap();
            let now = told(&events);
            let again: Vec<_> = finished.intersection(&now.started).collect();
            assert!(
                again.is_empty(),
                "reported as finished and run again: {again:?} (seed {seed}, kill {kills})"
            );
            finished.extend(now.finished);
            eventually("no process is left", || processes_in(project.path()).is_empty());
            if ended.code().is_some() {
                assert!(ended.success() && now.completed, "{ended:?}");
                break;
            }
        }
        assert_eq!(project.done(&["get", "join"]).stdout, expected);
        let verified = project.done(&["verify"]).stdout;
        assert!(verified.contains("all sound"), "{verified}");
        assert_eq!(project.leftovers(), 0, "no scratch folder is left");
    }
    println!("{victims:?}: {kills} kills, {repositories} repositories run to the end: nothing lost");
}

#[test]
fn a_run_survives_the_death_of_e3() {
    survives(Victims::Alone);
}

#[test]
fn a_run_survives_the_death_of_e3_and_all_its_tasks() {
    survives(Victims::All);
}
