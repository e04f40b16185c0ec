//! Tasks with very many inputs: these stay where they were staged, until the task is executed again. Whatever the task, or
//! anybody else, does to what stays there, the next execution reads what it should.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use e3_core::ObjectStoreExt;
use e3_types::{Hash, Kind, TaskObject};

use crate::bench::{self, Bench, script};

const COUNT: usize = 1000;

fn task(text: &str) -> TaskObject {
    let names: Vec<String> = (0..COUNT).map(|number| format!("i{number:04}")).collect();
    let inputs: Vec<(&str, Kind)> = names.iter().map(|name| (name.as_str(), Kind::File)).collect();
    script(text, &inputs, Kind::File)
}

/// One object for each input, the last of them another one.
async fn inputs(bench: &Bench, last: &str) -> Vec<Hash> {
    let mut hashes = Vec::new();
    for number in 0..COUNT - 1 {
        hashes.push(bench.put(format!("{number}\n")).await);
    }
    hashes.push(bench.put(last.to_owned()).await);
    hashes
}

fn expected(last: &str) -> String {
    let lines: Vec<String> = (0..COUNT - 1).map(|number| number.to_string()).collect();
    format!("0\n{COUNT}\n{}\n{last}", lines.join("\n"))
}

fn staged(bench: &Bench, task: &TaskObject) -> PathBuf {
    bench.folder.path().join("staged").join(Hash::of(&task.encode()).to_string())
}

/// How many files named `left` there are, how many inputs, and what these hold.
const READ: &str = "ls . $TMPDIR | grep -c left > output || true; ls inputs | wc -l | tr -d ' ' >> output; cat inputs/* >> output";

#[tokio::test]
async fn inputs_stay_and_only_those_are_staged_that_are_others() {
    let bench = bench::local();
    let task = task(READ);
    assert_eq!(bench.output(&task, &inputs(&bench, "one").await).await, expected("one"));
    let look = |name: &str| {
        let found = fs::metadata(staged(&bench, &task).join("work/inputs").join(name)).unwrap();
        // The change time is that of the last link.
        (found.ino(), found.ctime(), found.ctime_nsec())
    };
    let (first, last) = (look("i0000"), look("i0999"));
    assert_eq!(bench.scratch_files(), 0);
    assert_eq!(bench.output(&task, &inputs(&bench, "two").await).await, expected("two"));
    assert_eq!(look("i0000"), first);
    assert_ne!(look("i0999").0, last.0);
}

#[tokio::test]
async fn where_there_are_no_links_they_are_copied_again() {
    let bench = bench::memory();
    let task = task(READ);
    for last in ["one", "two", "one"] {
        assert_eq!(bench.output(&task, &inputs(&bench, last).await).await, expected(last));
    }
}

#[tokio::test]
async fn what_a_task_does_to_its_inputs_is_not_there_the_next_time() {
    let bench = bench::local();
    for spoil in [
        "touch inputs/more",
        "mkdir -p inputs/deep/er; touch inputs/deep/er/x",
        "rm inputs/i0007",
        "rm inputs/i0007; echo spoilt > inputs/i0007",
        "mv inputs/i0007 inputs/i0008",
        "rm inputs/i0007; ln -s /etc/passwd inputs/i0007",
        "rm inputs/i0007; mkdir inputs/i0007",
        "chmod 700 inputs",
        "touch left; mkdir -p $TMPDIR/deep; touch $TMPDIR/left",
        "chmod 500 inputs",
        "rm -r inputs",
        "rm -r inputs; touch inputs",
        "mv inputs others; ln -s others inputs",
        "exit 3",
    ] {
        let task = task(&format!("{READ}; {spoil}"));
        // Whether that was allowed, and what becomes of it, is not the question.
        let first = bench.run(&task, &inputs(&bench, "one").await).await;
        let again = bench.run(&task, &inputs(&bench, "two").await).await;
        assert_eq!(first.outcome.is_ok(), again.outcome.is_ok(), "{spoil}: {:?}", again.outcome);
        let Ok(output) = again.outcome else { continue };
        let bytes = bench.storage.objects().get_bytes(&output.hash, 1 << 20).await.unwrap();
        assert_eq!(bytes, expected("two"), "{spoil}");
    }
}

#[tokio::test]
async fn a_task_that_spoils_its_inputs_once_is_executed_as_ever_the_next_time() {
    let bench = bench::local();
    for spoil in [
        "mkdir inputs/i0007",
        "mkdir inputs/i0007; touch inputs/i0007/x",
        "ln -s /etc inputs/i0007",
        "exit 3",
    ] {
        let task = task(&format!("{READ}; if grep -q bad inputs/i0999; then rm inputs/i0007; {spoil}; fi"));
        assert_eq!(bench.output(&task, &inputs(&bench, "one").await).await, expected("one"));
        assert!(bench.run(&task, &inputs(&bench, "bad").await).await.outcome.is_err(), "{spoil}");
        assert_eq!(bench.output(&task, &inputs(&bench, "two").await).await, expected("two"), "{spoil}");
    }
}

#[tokio::test]
async fn whatever_is_done_to_what_stays_the_inputs_are_right() {
    let spoils: [fn(&Path); 10] = [
        |staged| fs::remove_dir_all(staged).unwrap(),
        |staged| {
            fs::remove_dir_all(staged).unwrap();
            fs::write(staged, "a file").unwrap();
        },
        |staged| fs::remove_dir_all(staged.join("tmp")).unwrap(),
        |staged| fs::remove_dir_all(staged.join("work/inputs")).unwrap(),
        |staged| fs::write(staged.join("work/inputs/more"), "").unwrap(),
        |staged| {
            let input = staged.join("work/inputs/i0003");
            fs::remove_file(&input).unwrap();
            fs::create_dir_all(input.join("deep")).unwrap();
        },
        |staged| {
            let input = staged.join("work/inputs/i0003");
            fs::remove_file(&input).unwrap();
            fs::write(input, "another").unwrap();
        },
        |staged| fs::rename(staged.join("work/inputs/i0003"), staged.join("work/inputs/i0004")).unwrap(),
        |staged| {
            let input = staged.join("work/inputs/i0003");
            fs::remove_file(&input).unwrap();
            symlink("i0004", input).unwrap();
        },
        |staged| fs::set_permissions(staged, fs::Permissions::from_mode(0o500)).unwrap(),
    ];
    let bench = bench::local();
    for (number, spoil) in spoils.into_iter().enumerate() {
        let task = task(&format!("{READ} # {number}"));
        bench.output(&task, &inputs(&bench, "one").await).await;
        spoil(&staged(&bench, &task));
        assert_eq!(bench.output(&task, &inputs(&bench, "two").await).await, expected("two"), "{number}");
    }
}

#[tokio::test]
async fn two_executions_of_one_task_at_once_do_not_share_a_folder() {
    let bench = bench::local();
    let task = task(READ);
    bench.output(&task, &inputs(&bench, "zero").await).await;
    let (one, two) = (inputs(&bench, "one").await, inputs(&bench, "two").await);
    let (one, two) = tokio::join!(bench.output(&task, &one), bench.output(&task, &two));
    assert_eq!((one, two), (expected("one"), expected("two")));
    assert!(staged(&bench, &task).exists());
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn the_inputs_of_a_few_tasks_stay_the_others_go() {
    let bench = bench::local();
    let inputs = inputs(&bench, "one").await;
    let tasks: Vec<_> = (0..10).map(|number| task(&format!("{READ} # {number}"))).collect();
    for task in &tasks {
        bench.output(task, &inputs).await;
    }
    let there = |task: &&TaskObject| staged(&bench, task).exists();
    assert_eq!(tasks.iter().filter(there).count(), 8);
    assert!(staged(&bench, &tasks[9]).exists());
    // Not if a task may change what it reads.
    let mut writable = task(READ);
    writable.inputs[5].writable = true;
    bench.output(&writable, &inputs).await;
    assert!(!staged(&bench, &writable).exists());
}
