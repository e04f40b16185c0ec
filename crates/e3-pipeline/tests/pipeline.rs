//! The pipeline file: what it becomes, and where it points when something is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use e3_pipeline::{Built, PipelineError, TrackedSource, build, parse};
use e3_types::{CommandLine, Kind, ObjectRef, RetryClass, TaskObject};
use proptest::prelude::*;

fn read(text: &str) -> Result<Built, PipelineError> {
    let pipeline = parse(Path::new("e3.toml"), text)?;
    build(pipeline, |name| (name == "SET").then(|| "value".into()))
}

fn task_of(built: &Built, name: &str) -> TaskObject {
    let hash = built.package.tasks[name].task;
    let bytes = built.objects.iter().find(|bytes| ObjectRef::of(bytes).hash == hash).unwrap();
    TaskObject::decode(bytes).unwrap()
}

const EXAMPLE: &str = r#"
[package]
name = "example"
version = "0.1.0"

[inputs]
raw = { file = "raw.csv" }
photos = { dir = "photos" }
params = { json = { b = 1.0, a = [true, "x"] } }
live = { kind = "file" }

[tasks.stats]
command = ["python3", "stats.py", "{clean}", "{params}", "{clean}", "{{clean}}", "-o", "{output}"]
inputs = ["photos", "clean"]
code = ["stats.py", "lib"]
output = "json"
env = { A = "1" }
pass_env = ["SET", "UNSET"]
writable = ["clean"]
cache = false
timeout = "10m"
retries = { max = 2, backoff = "500ms", on = ["exit:75", "timeout"] }

[tasks.clean]
command = "awk '{ print $1 }' {raw} {live} > {output}"

[outputs]
"out/stats.json" = "stats"
"out/clean" = { from = "clean", link = true }
"#;

#[test]
fn a_package_is_wired_as_the_file_says() {
    let built = read(EXAMPLE).unwrap();
    let package = &built.package;
    let paths: Vec<_> = package.datasets.iter().map(|(path, slot)| (path.as_str(), slot.kind)).collect();
    let expected = [
        ("clean", Kind::File),
        ("live", Kind::File),
        ("params", Kind::Json),
        ("photos", Kind::Dir),
        ("raw", Kind::File),
        ("stats", Kind::Json),
        ("stats.code", Kind::Dir),
    ];
    assert_eq!(paths, expected);
    assert_eq!(
        package.datasets["params"].default.as_deref(),
        Some(&ObjectRef::of(br#"{"a":[true,"x"],"b":1}"#))
    );
    let wired = &package.tasks["stats"];
    let inputs: Vec<_> = wired.inputs.iter().map(e3_types::DatasetPath::as_str).collect();
    assert_eq!(
        inputs,
        ["clean", "params", "photos", "stats.code"],
        "in the order of the command, each once, code last"
    );
    let task = task_of(&built, "stats");
    let staged: Vec<_> = task
        .inputs
        .iter()
        .map(|input| (input.name.as_ref().map(e3_types::Name::as_str), input.writable))
        .collect();
    assert_eq!(
        staged,
        [(Some("clean"), true), (Some("params"), false), (Some("photos"), false), (None, false)]
    );
    let env: Vec<_> = task.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "1"), ("SET", "value")], "what is not set stays unset");
    assert_eq!(wired.policy.timeout_ms, Some(600_000));
    let retries = wired.policy.retries.as_ref().unwrap();
    assert_eq!((retries.max, retries.backoff_ms), (2, 500));
    assert_eq!(retries.on, [RetryClass::Exit(Some(75)), RetryClass::Timeout]);
    assert!(!wired.policy.cache);
    let clean = task_of(&built, "clean");
    assert!(matches!(clean.command, CommandLine::Shell(_)));
    let followed: Vec<_> =
        built.tracked.iter().map(|tracked| (tracked.path.as_str(), &tracked.source)).collect();
    let code = TrackedSource::Code(vec!["stats.py".to_owned(), "lib".to_owned()]);
    let (photos, raw) = (TrackedSource::Dir("photos".to_owned()), TrackedSource::File("raw.csv".to_owned()));
    assert_eq!(followed, [("photos", &photos), ("raw", &raw), ("stats.code", &code)]);
}

#[test]
fn names_in_the_package_and_policies_are_not_part_of_a_task() {
    let with = |name: &str, extra: &str| {
        let text =
            format!("[package]\nname = \"p\"\n[tasks.{name}]\ncommand = \"echo > {{output}}\"\n{extra}");
        read(&text).unwrap().package.tasks[name].task
    };
    assert_eq!(with("a", ""), with("b", "timeout = \"1s\"\nretries = { max = 1 }\ncache = false\n"));
    assert_ne!(with("a", ""), with("a", "env = { X = \"1\" }"));
    assert_ne!(with("a", ""), with("a", "output = \"json\""));
}

/// Text, place, message.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "1:1", "the pipeline file has no `package`"),
    ("[package]\n", "1:1", "[package] has no `name`"),
    ("[package]\nname = 1\n", "2:8", "`name` of [package] must be a string, but is an integer"),
    ("[package]\nname = \"a b\"\n", "2:8", "`a b` is not a package name: expected"),
    (
        "[package]\nname = \"p\"\nnmae = 1\n",
        "3:1",
        "[package] has an unknown key `nmae`: did you mean `name`?",
    ),
    ("[package]\nname = \"p\"\n[taks]\n", "3:2", "unknown key `taks`: did you mean `tasks`?"),
    ("[package]\nname = \"p\"\n[package]\n", "3:2", "duplicate key"),
    ("[package\n", "1:9", "unclosed table"),
    ("P [inputs]\na = 1\n", "4:5", "input `a` must be a table, but is an integer"),
    ("P [inputs]\na = {}\n", "4:5", "input `a` must have exactly one of"),
    ("P [inputs]\na = { file = \"x\", dir = \"y\" }\n", "4:5", "input `a` must have exactly one of"),
    ("P [inputs]\na = { file = \"\" }\n", "4:14", "`file` of input `a` is empty"),
    (
        "P [inputs]\na = { kind = \"table\" }\n",
        "4:14",
        "must be \"file\", \"dir\" or \"json\", but is \"table\"",
    ),
    (
        "P [inputs]\na = { dir = \"/x\", keep = \"reference\" }\n",
        "4:19",
        "`keep` is not supported by this version",
    ),
    ("P [inputs]\na = { json = 2026-11-24 }\n", "4:14", "JSON has no value for a date or time"),
    ("P [inputs]\na = { json = [1, nan] }\n", "4:18", "not finite"),
    ("P [inputs]\na = { json = 9007199254740993 }\n", "4:14", "write it as a string"),
    ("P [inputs]\na-b = { json = 1 }\n", "4:1", "`a-b` is not a name"),
    ("P [inputs]\noutput = { json = 1 }\n", "4:1", "`output` cannot be a name"),
    ("P [tasks.a]\n", "3:1", "task `a` has no `command`"),
    (
        "P [tasks.a]\ncommand = 1\n",
        "4:11",
        "`command` of task `a` must be a string (run by sh) or a list of strings",
    ),
    ("P [tasks.a]\ncommand = \"  \"\n", "4:11", "`command` of task `a` is empty"),
    ("P [tasks.a]\ncommand = []\n", "4:11", "`command` of task `a` is empty"),
    ("P [tasks.a]\ncommand = [\"x\", 1]\n", "4:17", "must be a string, but is an integer"),
    (
        "P [tasks.a]\ncommand = \"x\"\ncomand = \"y\"\n",
        "5:1",
        "unknown key `comand`: did you mean `command`?",
    ),
    ("P [tasks.a]\ncommand = \"x\"\nresources = { memory = 2 }\n", "5:24", "must be a size in quotes"),
    ("P [tasks.a]\ncommand = \"x\"\nresources = { cpu = 0 }\n", "5:21", "a whole number from 1"),
    ("P [tasks.a]\ncommand = \"x\"\nresources = { memory = \"2 cups\" }\n", "5:24", "is not a size"),
    ("P [run.limits]\ncpu = 2\n", "4:1", "limited by `jobs`"),
    ("P [tasks.a]\ncommand = \"x\"\neach = \"b\"\n", "5:8", "there is no input or task `b`"),
    (
        "P [inputs]\nb = { file = \"f\" }\n[tasks.a]\ncommand = \"x\"\neach = \"b\"\n",
        "7:8",
        "`each` needs a folder to go through, but `b` is of kind file",
    ),
    (
        "P [inputs]\nb = { dir = \"f\" }\n[tasks.a]\ncommand = \"x {b}\"\neach = \"b\"\n",
        "6:14",
        "the task runs for one entry of `b` at a time",
    ),
    (
        "P [tasks.a]\ncommand = \"x {item.name}\"\n",
        "4:11",
        "is the name of an entry, but task `a` does not say",
    ),
    ("P [tasks.a]\ncommand = \"x\"\noutput = \"table\"\n", "5:10", "`output` of task `a` must be"),
    ("P [tasks.a]\ncommand = \"x\"\ntimeout = \"10 minutes\"\n", "5:11", "is not a duration"),
    ("P [tasks.a]\ncommand = \"x\"\nretries = { max = -1 }\n", "5:19", "must be a whole number from 0"),
    (
        "P [tasks.a]\ncommand = \"x\"\nretries = { max = 1, on = [\"often\"] }\n",
        "5:28",
        "`often` is not a class",
    ),
    ("P [tasks.a]\ncommand = \"x\"\ninputs = [\"b\"]\n", "5:11", "there is no input or task `b`"),
    ("P [tasks.a]\ncommand = \"x\"\nwritable = [\"b\"]\n", "5:13", "`b` is not an input of task `a`"),
    ("P [tasks.a]\ncommand = \"x\"\nenv = { A = 1 }\n", "5:13", "`A` in `env` of task `a` must be a string"),
    ("P [tasks.a]\ncommand = \"x\"\nenv = { TMPDIR = \"\" }\n", "5:9", "`TMPDIR` is set by e3 itself"),
    (
        "P [tasks.a]\ncommand = \"x\"\nenv = { A = \"\" }\npass_env = [\"A\"]\n",
        "6:13",
        "`A` is in `env` already",
    ),
    ("P [tasks.a]\ncommand = \"cat {b}\"\n", "4:16", "there is no input or task `b`"),
    ("P [tasks.a]\ncommand = \"\"\"\n\\\"cat\\\"\n{b}\"\"\"\n", "6:1", "there is no input or task `b`"),
    ("P [inputs]\na = { json = 1 }\n[tasks.a]\ncommand = \"x\"\n", "5:8", "`a` is an input already"),
    ("P [tasks.a]\ncommand = \"cat {a}\"\n", "3:8", "these tasks wait for each other in a cycle: a -> a"),
    ("P [outputs]\n\"x\" = \"a\"\n", "4:7", "there is no input or task `a`"),
    (
        "P [tasks.a]\ncommand = \"x\"\n[outputs]\n\"../x\" = \"a\"\n",
        "6:1",
        "must be a path inside the project folder",
    ),
    (
        "P [tasks.a]\ncommand = \"x\"\n[outputs]\n\"/x\" = \"a\"\n",
        "6:1",
        "must be a path inside the project folder",
    ),
    ("P [tasks.a]\ncommand = \"x\"\n[outputs]\n\".e3/x\" = \"a\"\n", "6:1", "belongs to e3"),
    (
        "P [tasks.a]\ncommand = \"x\"\n[outputs]\n\"x\" = \"a\"\n\"x/y\" = \"a\"\n",
        "7:1",
        "one lies in the other",
    ),
    ("P [run]\njobs = 0\n", "4:8", "`jobs` of [run] must be a whole number from 1"),
    ("P [run]\ngrace = \"x\"\n", "4:9", "is not a duration"),
];

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, place, message) in WRONG {
        let text = text.replacen("P ", "[package]\nname = \"p\"\n", 1);
        let error = read(&text).unwrap_err().to_string();
        let first = error.lines().next().unwrap();
        assert!(first.starts_with(&format!("e3.toml:{place}: ")), "{text}\n{error}");
        assert!(first.contains(message), "{text}\n{error}");
        assert!(error.lines().last().unwrap().trim_end().ends_with('^'), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _read = read(&text);
    }

    #[test]
    fn no_mutation_of_a_real_file_makes_the_reader_panic(at in 0..EXAMPLE.len(), with in ".{0,3}", cut in 0..20_usize) {
        prop_assume!(EXAMPLE.is_char_boundary(at));
        let end = (at + cut).min(EXAMPLE.len());
        let text = format!("{}{with}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if let Err(error) = read(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
