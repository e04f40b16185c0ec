//! What `task_execute` promises: what a task sees, what its end means, what is left behind.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Duration};

use crate::bench::{Bench, local, memory, script};
use e3_core::{LogStream, ObjectStoreExt, TaskExecuteOptions, TreeBuilder, TreeEntry, executions, read_tree};
use e3_types::{
    CommandLine, ErrorClass, ExecutionState, Failure, FileEntry, Hash, Kind, ObjectRef, TaskInput, TaskObject,
};

/// Larger than what is copied instead of linked.
fn large() -> Vec<u8> {
    vec![b'x'; 100_000]
}

async fn code(bench: &Bench, files: &[(&str, &str, bool)]) -> Hash {
    let mut tree = TreeBuilder::new();
    for (path, text, executable) in files {
        let object = bench.storage.objects().put_bytes((*text).to_owned()).await.unwrap();
        tree.add_file(path.as_ref(), FileEntry { object, executable: *executable }).unwrap();
    }
    let tree = tree.finish();
    for dir in tree.dirs {
        bench.storage.objects().put_bytes(dir).await.unwrap();
    }
    tree.root.hash
}

#[tokio::test]
async fn inputs_are_staged_under_their_names_and_the_output_is_kept() {
    for bench in [memory(), local()] {
        let task = script(
            "cat {a} {b} > {output}; cat \"$E3_INPUT_a\" >> \"$E3_OUTPUT\"",
            &[("a", Kind::File), ("b", Kind::File)],
            Kind::File,
        );
        let inputs = [bench.put("1").await, bench.put("2").await];
        assert_eq!(bench.output(&task, &inputs).await, "121");
        assert_eq!(bench.scratch_files(), 0);
    }
}

#[tokio::test]
async fn an_argv_is_run_without_a_shell() {
    let bench = local();
    let words = ["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", "$HOME; {a} {{a}}", "{output}"];
    let mut task = script("", &[("a", Kind::File)], Kind::File);
    task.command = CommandLine::Argv(words.map(str::to_owned).into());
    assert_eq!(bench.output(&task, &[bench.put("x").await]).await, "$HOME; inputs/a {a}");
}

#[tokio::test]
async fn a_text_is_what_a_shell_makes_of_it_also_where_none_is_needed() {
    let bench = local();
    let x = bench.put("x").await;
    let task = |text| script(text, &[("a", Kind::File)], Kind::File);
    assert_eq!(bench.output(&task("cp {a} {output}"), &[x]).await, "x");
    // Its parent is who started it: a shell that stayed would be in between.
    let parent = "grep PPid: /proc/self/status";
    let direct = bench.run(&script(parent, &[], Kind::File), &[]).await;
    let in_shell = bench.run(&script("grep PPid: '/proc/self/status'; exit 3", &[], Kind::File), &[]).await;
    assert_eq!(bench.log(&direct, LogStream::Stdout).await, format!("PPid:\t{}\n", std::process::id()));
    assert_ne!(bench.log(&in_shell, LogStream::Stdout).await, format!("PPid:\t{}\n", std::process::id()));
    // A program that no system can start, but every shell.
    let mut scripted = task("code/tool {a} {output}");
    let tool = code(&bench, &[("code/tool", "cat \"$1\" > \"$2\"; echo as a script >> \"$2\"", true)]).await;
    scripted.inputs.push(TaskInput { name: None, kind: Kind::Dir, writable: false });
    assert_eq!(bench.output(&scripted, &[x, tool]).await, "xas a script\n");
    // What is not there fails as it always has.
    let missing = bench.run(&task("no-such-program {a} {output}"), &[x]).await;
    assert_eq!(missing.outcome, Err(Failure::Exit { code: 127 }));
    assert!(bench.log(&missing, LogStream::Stderr).await.contains("no-such-program"));
}

#[tokio::test]
async fn only_what_is_declared_is_in_the_environment() {
    let bench = local();
    let mut task = script(
        "env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= | sed 's/=.*//' | sort > {output}",
        &[("a", Kind::File)],
        Kind::File,
    );
    task.env = BTreeMap::from([("MINE".to_owned(), "1".to_owned())]);
    assert_eq!(
        bench.output(&task, &[bench.put("x").await]).await,
        "E3_INPUT_a\nE3_OUTPUT\nMINE\nPATH\nTMPDIR\n"
    );
}

#[tokio::test]
async fn what_a_task_declares_wins_over_what_it_inherits_in_every_program() {
    let bench = local();
    // Programs that are not shells take the first of two variables of one name.
    let words = CommandLine::Argv(["/usr/bin/env".to_owned()].into());
    for command in [words, CommandLine::Shell("/usr/bin/env".to_owned())] {
        let mut task = script("", &[], Kind::File);
        task.command = command;
        task.env = BTreeMap::from([("PATH", "/declared"), ("TMPDIR", "/elsewhere")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let told = bench.log(&bench.run(&task, &[]).await, LogStream::Stdout).await;
        let of = |name: &str| told.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!((of("PATH="), of("TMPDIR=")), (vec!["PATH=/declared"], vec!["TMPDIR=/elsewhere"]));
    }
}

#[tokio::test]
async fn a_text_that_needs_no_shell_is_told_its_folder_as_by_one() {
    let bench = local();
    for declared in [None, Some("/elsewhere")] {
        for text in ["printenv PWD", "printenv 'PWD'"] {
            let mut task = script(text, &[], Kind::File);
            task.env.extend(declared.map(|folder| ("PWD".to_owned(), folder.to_owned())));
            let told = bench.log(&bench.run(&task, &[]).await, LogStream::Stdout).await;
            let scratch = bench.scratch.canonicalize().unwrap();
            assert!(std::path::Path::new(told.trim_end()).starts_with(&scratch), "{text}: {told:?}");
        }
    }
}

#[tokio::test]
async fn the_temporary_folder_is_there_and_goes_away() {
    let bench = local();
    let task = script("echo x > \"$TMPDIR/file\"; cp \"$TMPDIR/file\" {output}", &[], Kind::File);
    assert_eq!(bench.output(&task, &[]).await, "x\n");
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn code_stands_in_the_working_folder_with_its_executable_bit() {
    for bench in [memory(), local()] {
        let mut task = script("./bin/go > {output}; cat lib/data >> {output}", &[], Kind::File);
        task.inputs.push(TaskInput { name: None, kind: Kind::Dir, writable: false });
        let code =
            code(&bench, &[("bin/go", "#!/bin/sh\necho gone\n", true), ("lib/data", "data\n", false)]).await;
        assert_eq!(bench.output(&task, &[code]).await, "gone\ndata\n");
    }
}

#[tokio::test]
async fn a_folder_comes_back_as_it_was_made() {
    for bench in [memory(), local()] {
        let make = "mkdir -p {output}/sub {output}/empty; echo a > {output}/sub/a; echo go > {output}/go; \
                    chmod +x {output}/go; ln -s sub/a {output}/link";
        let result = bench.run(&script(make, &[], Kind::Dir), &[]).await;
        let root = result.outcome.unwrap();
        let file =
            |text: &[u8], executable| TreeEntry::File(FileEntry { object: ObjectRef::of(text), executable });
        let expected = [
            ("empty".into(), TreeEntry::Dir),
            ("go".into(), file(b"go\n", true)),
            ("link".into(), TreeEntry::Symlink("sub/a".to_owned())),
            ("sub".into(), TreeEntry::Dir),
            ("sub/a".into(), file(b"a\n", false)),
        ];
        assert_eq!(read_tree(bench.storage.objects(), &root).await.unwrap(), expected);
        let show = "cd {d}; find . | sort; test -x go; readlink link";
        let show = script(&format!("({show}) > {{output}}"), &[("d", Kind::Dir)], Kind::File);
        let shown = bench.output(&show, &[root.hash]).await;
        assert_eq!(shown, ".\n./empty\n./go\n./link\n./sub\n./sub/a\nsub/a\n");
    }
}

#[tokio::test]
async fn json_is_kept_in_canonical_form_and_must_parse() {
    let bench = local();
    let task = script("echo '{ \"b\": 1.0, \"a\": [ ] }' > {output}", &[], Kind::Json);
    assert_eq!(bench.output(&task, &[]).await, r#"{"a":[],"b":1}"#);
    let message = bench.failure(&script("echo '{oops' > {output}", &[], Kind::Json), &[]).await;
    assert!(
        message.starts_with("the task's output is declared as json, but is not valid JSON:"),
        "{message}"
    );
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart() {
    let bench = local();
    let task = |text: &str, output| script(text, &[], output);
    let code = bench.run(&task("echo out; echo err >&2; exit 3", Kind::File), &[]).await;
    assert_eq!(code.outcome, Err(Failure::Exit { code: 3 }));
    assert_eq!(bench.log(&code, LogStream::Stdout).await, "out\n");
    assert_eq!(bench.log(&code, LogStream::Stderr).await, "err\n");
    let signal = bench.run(&task("kill -SEGV $$", Kind::File), &[]).await;
    assert_eq!(signal.outcome, Err(Failure::Signal { signal: 11 }));
    for (text, output, expected) in [
        ("true", Kind::File, "wrote no output: it must write its file"),
        ("true", Kind::Dir, "wrote no output: it must write its dir"),
        ("mkdir {output}", Kind::File, "output is a folder, but it is declared as file"),
        ("echo x > {output}", Kind::Dir, "output is a file, but it is declared as dir"),
        ("ln -s /etc/passwd {output}", Kind::File, "output is a symbolic link, but"),
        ("mkfifo {output}", Kind::File, "output is a device, a socket or a fifo, but"),
        ("mkdir {output}; mkfifo {output}/p", Kind::Dir, "`p` cannot be stored: it is a device"),
        (
            "mkdir {output}; ln -s /etc {output}/l",
            Kind::Dir,
            "only relative targets inside the folder are kept",
        ),
    ] {
        let result = bench.run(&task(text, output), &[]).await;
        let Err(Failure::Error { class: ErrorClass::User, message }) = result.outcome else {
            panic!("{text}")
        };
        assert!(message.contains(expected), "{text}: {message}");
        let record = executions::find(&*bench.storage, result.execution.unwrap()).await.unwrap().unwrap();
        assert_eq!(record.state, ExecutionState::Error);
    }
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let bench = local();
    let argv = |program: &str| TaskObject {
        command: CommandLine::Argv(vec![program.to_owned()]),
        ..script("", &[], Kind::File)
    };
    let message = bench.failure(&argv("no-such-program"), &[]).await;
    assert_eq!(
        message,
        "the command `no-such-program` was not found in any folder of PATH: is it installed?"
    );
    let message = bench.failure(&argv("./run.sh"), &[]).await;
    assert!(message.starts_with("the command `./run.sh` was not found: a task sees only"), "{message}");
    let mut not_executable = argv("./run.sh");
    not_executable.inputs.push(TaskInput { name: None, kind: Kind::Dir, writable: false });
    let code = code(&bench, &[("run.sh", "#!/bin/sh\n", false)]).await;
    let message = bench.failure(&not_executable, &[code]).await;
    assert_eq!(message, "the command `./run.sh` is not executable (permission denied)");
}

#[tokio::test]
async fn a_missing_input_is_an_error_that_names_the_object() {
    let bench = local();
    let missing = Hash::of(b"never put");
    let message = bench.failure(&script("true", &[("a", Kind::File)], Kind::File), &[missing]).await;
    assert_eq!(message, format!("staging input `a`: object {missing} is not in the store"));
}

/// Who is to make it again is found by the number of the input, also for a file inside of a folder.
#[tokio::test]
async fn of_several_inputs_the_missing_one_is_blamed() {
    for bench in [memory(), local()] {
        let folder = code(&bench, &[("x", "of the folder", false), ("y", "of the folder, too", false)]).await;
        let inputs = [bench.put("a").await, folder, bench.put("c").await, bench.put("d").await];
        let kinds = [("a", Kind::File), ("b", Kind::Dir), ("c", Kind::File), ("d", Kind::File)];
        let task = script("cat {a} {b}/x {c} {d} > {output}", &kinds, Kind::File);
        for (at, bytes, name) in [(0, "a", "a"), (1, "of the folder, too", "b"), (2, "c", "c"), (3, "d", "d")]
        {
            let missing = Hash::of(bytes.as_bytes());
            let any_time = e3_types::Timestamp::from_unix_ms(u64::MAX);
            assert_eq!(bench.storage.objects().delete_many(&[missing], any_time).await.unwrap(), 1);
            match bench.run(&task, &inputs).await.outcome {
                Err(Failure::InputMissing { input, object, message }) => {
                    assert_eq!((input, object), (at, missing));
                    assert!(message.starts_with(&format!("staging input `{name}`: ")), "{message}");
                }
                other => panic!("{other:?}"),
            }
            bench.put(bytes).await;
        }
        assert_eq!(bench.output(&task, &inputs).await, "aof the foldercd");
    }
}

#[tokio::test]
async fn a_task_that_changes_a_staged_file_errs_and_the_object_is_never_served_altered() {
    let bench = local();
    for bytes in [b"small".to_vec(), large()] {
        let input = bench.put(bytes.clone()).await;
        let change = "chmod u+w {a}; printf y | dd of={a} conv=notrunc 2>/dev/null; echo done > {output}";
        let message = bench.failure(&script(change, &[("a", Kind::File)], Kind::File), &[input]).await;
        assert_eq!(
            message,
            "its staged file `inputs/a` was changed, by it or by another task that reads the same: what is staged is \
             read-only: `writable = [\"a\"]` gives it a private copy"
        );
        assert_eq!(bench.storage.objects().stat(&input).await.unwrap(), None);
        bench.put(bytes.clone()).await;
        assert_eq!(bench.storage.objects().get_bytes(&input, u64::MAX).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_writable_input_is_a_private_copy() {
    let bench = local();
    let bytes = large();
    let input = bench.put(bytes.clone()).await;
    let mut task =
        script("echo more >> {a}; wc -c < {a} | tr -d ' ' > {output}", &[("a", Kind::File)], Kind::File);
    task.inputs[0].writable = true;
    assert_eq!(bench.output(&task, &[input]).await, "100005\n");
    assert_eq!(bench.storage.objects().get_bytes(&input, u64::MAX).await.unwrap(), bytes);
}

#[tokio::test]
async fn an_input_may_become_the_output() {
    let bench = local();
    let input = bench.put(large()).await;
    for how in ["ln {a} {output}", "cp {a} {output}", "mv {a} {output}"] {
        let result = bench.run(&script(how, &[("a", Kind::File)], Kind::File), &[input]).await;
        assert_eq!(result.outcome.unwrap().hash, input, "{how}");
        assert_eq!(bench.storage.objects().stat(&input).await.unwrap(), Some(100_000), "{how}");
    }
}

#[tokio::test]
async fn a_task_may_remove_its_inputs() {
    let bench = local();
    let input = bench.put(large()).await;
    for how in [
        "rm {a}",
        "rm -r inputs",
        "rm -r inputs; touch inputs",
        "rm -r inputs; ln -s . inputs",
        "rm -r inputs; ln -s inputs inputs",
        "rm -r inputs; ln -s $(head -c 4000 /dev/zero | tr '\\0' a) inputs",
    ] {
        let task = script(&format!("{how}; echo done > {{output}}"), &[("a", Kind::File)], Kind::File);
        assert_eq!(bench.output(&task, &[input]).await, "done\n", "{how}");
        assert_eq!(bench.storage.objects().stat(&input).await.unwrap(), Some(100_000), "{how}");
        assert_eq!(bench.scratch_files(), 0, "{how}");
    }
}

#[tokio::test]
async fn a_task_that_has_altered_its_input_is_found_out_though_it_hides_it() {
    for hides in ["rm {a}", "rm -r inputs", "rm -r inputs; touch inputs", "rm -r inputs; ln -s inputs inputs"]
    {
        let bench = local();
        let input = bench.put(large()).await;
        let text = format!("chmod 644 {{a}}; echo more >> {{a}}; {hides}; echo done > {{output}}");
        let result = bench.run(&script(&text, &[("a", Kind::File)], Kind::File), &[input]).await;
        let Err(Failure::Error { class: ErrorClass::User, message }) = &result.outcome else {
            panic!("{hides}: {:?}", result.outcome)
        };
        assert!(message.contains("`inputs/a` was changed"), "{hides}: {message}");
    }
}

#[tokio::test]
async fn an_input_of_which_only_the_mode_was_changed_gets_it_back() {
    let bench = local();
    let input = bench.put(large()).await;
    // Were it not put back, the next task would get another file, one that can be trusted.
    let mut files = Vec::new();
    for then in ["chmod 777 {a}", "true"] {
        let text = format!("set -- $(ls -i {{a}}); echo $1 > {{output}}; {then}");
        files.push(bench.output(&script(&text, &[("a", Kind::File)], Kind::File), &[input]).await);
    }
    assert_eq!(files[0], files[1]);
}

#[tokio::test]
async fn the_files_of_others_keep_their_mode() {
    let bench = local();
    let input = bench.put(large()).await;
    let others = tempfile::tempdir().unwrap();
    let file = others.path().join("a");
    fs::write(&file, "private").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("rm -r inputs; ln -s {} inputs; echo done > {{output}}", others.path().display());
    let task = script(&text, &[("a", Kind::File)], Kind::File);
    assert_eq!(bench.output(&task, &[input]).await, "done\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
}

/// Whatever a task does with the names of its inputs, its output is what it reads there.
#[tokio::test]
async fn an_output_that_is_another_name_of_a_file_is_what_that_file_holds() {
    let inputs = &[("a", Kind::File), ("b", Kind::File)];
    for (text, holds) in [
        ("ln {a} {output}", "hello-aaaa"),
        ("ln {a} other; ln other {output}", "hello-aaaa"),
        ("mv -f {a} {b}; ln {b} {output}", "hello-aaaa"),
        ("ln -f {a} {b}; ln {b} {output}", "hello-aaaa"),
        ("rm {b}; cp -p {a} {b}; ln {b} {output}", "hello-aaaa"),
        (
            "cp {a} t; chmod 644 t; printf HELLO-AAAA > t; touch -r {a} t; mv -f t {a}; ln {a} {output}",
            "HELLO-AAAA",
        ),
    ] {
        let bench = local();
        let (a, b) = (bench.put("hello-aaaa").await, bench.put("world-bbbb").await);
        assert_eq!(bench.output(&script(text, inputs, Kind::File), &[a, b]).await, holds, "{text}");
        for (object, bytes) in [(a, "hello-aaaa"), (b, "world-bbbb")] {
            assert_eq!(bench.storage.objects().get_bytes(&object, 100).await.unwrap(), bytes, "{text}");
        }
    }
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_stopped() {
    let bench = local();
    let options =
        TaskExecuteOptions { timeout: Some(Duration::from_millis(50)), ..TaskExecuteOptions::default() };
    let result = bench.run_with(&script("exec sleep 1000", &[], Kind::File), &[], options).await;
    assert_eq!(result.outcome, Err(Failure::Timeout { after_ms: 50 }));
}

#[tokio::test]
async fn a_folder_without_permissions_is_cleaned_up_too() {
    let bench = local();
    let task = script(
        "mkdir -p closed/inner; echo x > closed/inner/x; chmod 000 closed/inner closed; echo x > {output}",
        &[],
        Kind::File,
    );
    assert_eq!(bench.output(&task, &[]).await, "x\n");
    assert_eq!(bench.scratch_files(), 0);
}

#[tokio::test]
async fn whoever_looks_on_sees_the_output_as_it_comes_and_the_record_says_what_it_cost() {
    let bench = local();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&seen);
    let options = TaskExecuteOptions {
        stdout: Some(std::sync::Arc::new(move |piece: &[u8]| sink.lock().unwrap().extend_from_slice(piece))),
        ..TaskExecuteOptions::default()
    };
    let result = bench
        .run_with(
            &script(
                "echo hello; dd if=/dev/zero of=/dev/null bs=419430400 count=1; echo x > {output}",
                &[],
                Kind::File,
            ),
            &[],
            options,
        )
        .await;
    assert_eq!(*seen.lock().unwrap(), b"hello\n");
    let record = executions::find(&*bench.storage, result.execution.unwrap()).await.unwrap().unwrap();
    assert!(record.usage.peak_memory.unwrap() >= 400 << 20);
    assert_eq!(record.runner, "local");
}
