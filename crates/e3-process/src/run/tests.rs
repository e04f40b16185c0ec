//! One process from start to end, in every way that it can go.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use super::*;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Output for Kept {
    type Error = Infallible;

    async fn take(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        self.0.lock().unwrap().extend_from_slice(piece);
        Ok(())
    }
}

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn shell(script: &str) -> Command {
    Command {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: [("PATH".into(), std::env::var_os("PATH").unwrap_or_default())].into(),
        folder: "/".into(),
        confinement: Confinement::default(),
        launcher: None,
        supervisor: None,
        home: "/".into(),
    }
}

fn patient() -> Stop {
    let token = CancellationToken::new;
    Stop { politely: token(), at_once: token(), timeout: None, grace: Duration::from_mins(1) }
}

async fn run_shell(script: &str, stop: &Stop) -> (Ended, String, String) {
    let (out, err) = (Kept::default(), Kept::default());
    let ended = run(&shell(script), stop, out.clone(), err.clone()).await.unwrap();
    (ended, out.text(), err.text())
}

#[tokio::test]
async fn both_streams_and_the_code_arrive() {
    let (ended, out, err) = run_shell("echo out; echo err >&2; exit 3", &patient()).await;
    assert_eq!((ended.exit, out.as_str(), err.as_str()), (Exit::Code(3), "out\n", "err\n"));
    assert!(!ended.leaked && !ended.stopped && !ended.timed_out);
}

#[tokio::test]
async fn the_largest_resident_set_is_that_of_the_process_and_not_ours() {
    // More than any of these tests has.
    const LARGE: u64 = 400 << 20;
    let of = async |script: &str| run_shell(script, &patient()).await.0.usage.peak_memory;
    let large = of(&format!("dd if=/dev/zero of=/dev/null bs={LARGE} count=1")).await;
    assert!(large.is_some_and(|bytes| (LARGE..2 * LARGE).contains(&bytes)), "{large:?}");
    // Linux tells what its parent had if it has less, and a shell has less than these tests.
    #[cfg(target_os = "linux")]
    assert_eq!(of("true").await, None);
}

/// Linux counts what a process was before it had its program, also to us if our parent is large.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_our_parent_is_not_ours() {
    assert!(this_program("run::tests::a_large_parent", &["--ignored"]));
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a process of its own, so that no other test becomes large: the test before it starts it"]
fn a_large_parent() {
    let large = std::hint::black_box(vec![1_u8; 600 << 20]);
    let test = "run::tests::the_largest_resident_set_is_that_of_the_process_and_not_ours";
    assert!(this_program(test, &[]));
    drop(large);
}

#[cfg(target_os = "linux")]
fn this_program(test: &str, more: &[&str]) -> bool {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let done = command.args(["--exact", test]).args(more).output().unwrap();
    done.status.success() && String::from_utf8(done.stdout).unwrap().contains("1 passed")
}

#[tokio::test]
async fn a_signal_is_told_as_one() {
    let (ended, ..) = run_shell("kill -SEGV $$", &patient()).await;
    assert_eq!(ended.exit, Exit::Signal(11));
}

#[tokio::test]
async fn more_output_than_a_pipe_holds_does_not_block() {
    let (ended, out, _) = run_shell("head -c 1000000 /dev/zero | tr '\\0' x", &patient()).await;
    assert_eq!((ended.exit, out.len()), (Exit::Code(0), 1_000_000));
}

#[tokio::test]
async fn output_that_nobody_takes_ends_all_who_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = "for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do sleep 1000 & echo $! > $i; done; echo; wait";
    let command = Command { folder: folder.path().to_owned(), ..shell(script) };
    let failed = run(&command, &patient(), Full, Full).await;
    assert!(matches!(failed, Err(RunError::Output("full"))));
    for child in std::fs::read_dir(folder.path()).unwrap() {
        let pid = std::fs::read_to_string(child.unwrap().path()).unwrap();
        // One that is about to be dead has closed its files.
        let files = std::fs::read_dir(format!("/proc/{}/fd", pid.trim()));
        assert_eq!(files.map_or(0, Iterator::count), 0);
    }
}

struct Full;

impl Output for Full {
    type Error = &'static str;

    async fn take(&mut self, _piece: &[u8]) -> Result<(), &'static str> {
        Err("full")
    }
}

#[tokio::test]
async fn only_the_given_environment_is_seen_and_there_is_no_input() {
    let (_, out, _) =
        run_shell("cat; env | grep -v -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=", &patient()).await;
    assert_eq!(out, "");
}

#[tokio::test]
async fn a_polite_stop_lets_the_process_clean_up() {
    let stop = patient();
    let started = Kept::default();
    let trigger = Trigger { kept: started.clone(), token: stop.politely.clone() };
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let ended = run(&shell(script), &stop, trigger, Kept::default()).await.unwrap();
    assert_eq!((ended.exit, ended.stopped), (Exit::Code(9), true));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_that_has_stopped_itself_hears_the_request_as_well() {
    let stop = Stop { grace: Duration::from_secs(10), ..patient() };
    let trigger = Trigger { kept: Kept::default(), token: stop.politely.clone() };
    let stopped = "while read -r stat < /proc/$$/stat; do case $stat in *') T '*) break;; esac; done";
    let script = format!("trap 'exit 9' TERM; ({stopped}; echo ready) & kill -STOP $$; wait; exit 8");
    let ended = run(&shell(&script), &stop, trigger, Kept::default()).await.unwrap();
    assert_eq!((ended.exit, ended.stopped), (Exit::Code(9), true));
}

#[tokio::test]
async fn one_that_ignores_the_request_is_killed_after_the_grace_with_its_children() {
    let stop = Stop { grace: Duration::from_millis(20), ..patient() };
    let trigger = Trigger { kept: Kept::default(), token: stop.politely.clone() };
    let script = "trap '' TERM; sleep 1000 & echo ready; while :; do sleep 0.01; done";
    let ended = run(&shell(script), &stop, trigger, Kept::default()).await.unwrap();
    assert_eq!((ended.exit, ended.stopped, ended.leaked), (Exit::Signal(9), true, false));
}

#[tokio::test]
async fn a_request_for_an_end_at_once_does_not_wait_for_the_grace() {
    let stop = patient();
    let trigger = Trigger { kept: Kept::default(), token: stop.at_once.clone() };
    let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let ended = run(&shell(script), &stop, trigger, Kept::default()).await.unwrap();
    assert_eq!((ended.exit, ended.stopped), (Exit::Signal(9), true));
}

#[tokio::test]
async fn a_timeout_is_told_as_one() {
    let stop = Stop { timeout: Some(Duration::from_millis(20)), ..patient() };
    let (ended, ..) = run_shell("exec sleep 1000", &stop).await;
    assert_eq!((ended.exit, ended.timed_out, ended.stopped), (Exit::Signal(15), true, false));
}

#[tokio::test]
async fn a_background_child_that_holds_the_output_is_not_waited_for() {
    let (ended, out, _) = run_shell("sleep 1000 & echo done", &patient()).await;
    assert_eq!((ended.exit, ended.leaked, out.as_str()), (Exit::Code(0), false, "done\n"));
}

#[tokio::test]
async fn a_child_that_left_the_group_and_holds_the_output_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "setsid sh -c 'echo left > left; exec sleep 3' & while [ ! -s left ]; do sleep 0.01; done; echo done";
    let command = Command { folder: folder.path().to_owned(), ..shell(script) };
    let out = Kept::default();
    let ended = run(&command, &patient(), out.clone(), Kept::default()).await.unwrap();
    assert_eq!((ended.exit, ended.leaked, out.text().as_str()), (Exit::Code(0), true, "done\n"));
}

/// A shell in a folder of its own, with a supervisor. What it starts knows the folder.
fn supervised(script: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_owned();
    let mut command = shell(script);
    command.environment.insert("TMPDIR".into(), home.join("tmp").into());
    command.supervisor = Some(Arc::new(Supervisor::new(home.clone(), None)));
    (command.folder, command.home) = (home.clone(), home);
    (folder, command)
}

/// Whether the process whose number is in a file is there, as more than a zombie.
fn is_alive(file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_leaves_its_group_and_its_session_is_found_and_ended() {
    // A double fork; with the output held open, with it closed, with another folder, and with a cleared environment.
    for daemon in [
        "exec sleep 1000",
        "exec sleep 1000 > /dev/null 2>&1",
        "cd /; exec sleep 1000 > /dev/null 2>&1",
        "exec env -i /bin/sleep 1000",
    ] {
        let script = format!(
            "setsid sh -c '(echo $$ > parent; sh -c \"echo \\$\\$ > pid; {daemon}\") & while [ ! -s pid ]; do sleep 0.01; done' & \
             while [ ! -s pid ]; do sleep 0.01; done; echo done"
        );
        let (folder, command) = supervised(&script);
        let out = Kept::default();
        let ended = run(&command, &patient(), out.clone(), Kept::default()).await.unwrap();
        assert_eq!(
            (ended.exit, ended.leaked, out.text().as_str()),
            (Exit::Code(0), false, "done\n"),
            "{daemon}"
        );
        assert!(ended.strays.iter().any(|name| name.starts_with("sleep (process ")), "{ended:?}");
        assert!(!is_alive(&folder.path().join("pid")), "{daemon}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_hides_is_ended_with_the_supervisor_and_never_a_neighbour() {
    let hide = "setsid sh -c 'cd /; exec env -i sh -c \"echo \\$\\$ > $TMPDIR.pid; exec sleep 1000 > /dev/null 2>&1\"' & \
                while [ ! -s $TMPDIR.pid ]; do sleep 0.01; done";
    let (folder, first) = supervised(hide);
    let supervisor = first.supervisor.clone();
    let neighbour = Command { supervisor, ..shell("echo ready; exec sleep 1000") };
    let stop = patient();
    let ready = CancellationToken::new();
    let trigger = Trigger { kept: Kept::default(), token: ready.clone() };
    let one_after_the_other = async {
        ready.cancelled().await;
        let ended = run(&first, &patient(), Kept::default(), Kept::default()).await.unwrap();
        assert!(
            is_alive(&folder.path().join("tmp.pid")),
            "it hides, and could be the neighbour's: {ended:?}"
        );
        stop.politely.cancel();
    };
    let (neighbour_ended, ()) =
        tokio::join!(run(&neighbour, &stop, trigger, Kept::default()), one_after_the_other);
    assert_eq!(neighbour_ended.unwrap().exit, Exit::Signal(15), "it ran until it was asked to end");
    drop((first, neighbour));
    assert!(!is_alive(&folder.path().join("tmp.pid")));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_of_starting() {
    let command = Command { program: "no-such-program".into(), ..shell("") };
    let error = run(&command, &patient(), Kept::default(), Kept::default()).await.unwrap_err();
    assert!(matches!(&error, RunError::Spawn(error) if error.kind() == io::ErrorKind::NotFound), "{error}");
}

#[tokio::test]
async fn a_dropped_future_kills_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut command = shell("exec 3<>fifo; sleep 1000 & echo ready; sleep 1000");
    command.folder = folder.path().to_owned();
    let stop = patient();
    let reached = CancellationToken::new();
    let trigger = Trigger { kept: Kept::default(), token: reached.clone() };
    tokio::select! {
        _ = run(&command, &stop, trigger, Kept::default()) => panic!("it runs for 1000 s"),
        () = reached.cancelled() => {}
    }
    // All that held the fifo are dead, so there is nobody to write to.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let mut opened = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty());
    let deadline = Instant::now() + Duration::from_secs(10);
    while opened.is_ok() && Instant::now() < deadline {
        tokio::task::yield_now().await;
        opened = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty());
    }
    assert_eq!(opened.unwrap_err(), rustix::io::Errno::NXIO);
}

/// Cancels a token at the first output: the process has come that far.
struct Trigger {
    kept: Kept,
    token: CancellationToken,
}

impl Output for Trigger {
    type Error = Infallible;

    async fn take(&mut self, piece: &[u8]) -> Result<(), Infallible> {
        self.token.cancel();
        self.kept.take(piece).await
    }
}
