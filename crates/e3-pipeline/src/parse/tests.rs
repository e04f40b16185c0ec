//! A file as a whole and in pieces; what it says of runs.

use proptest::prelude::*;

use super::*;
use crate::build::spec_of;

/// What a file says, taken apart and as a whole.
fn both(text: &str) -> (Option<String>, Result<String, PipelineError>) {
    let source = &SourceText::new("e3.toml".into(), text);
    let told = |pipeline: Pipeline| {
        let task = |(name, task)| (name, spec_of(&pipeline, task));
        let tasks: Vec<_> = pipeline.tasks.iter().map(task).collect();
        let places: Vec<_> = pipeline.tasks.values().map(|task| (task.kind, &task.span)).collect();
        let Pipeline { name, version, inputs, outputs, run, .. } = &pipeline;
        format!("{:?}", (name, version, inputs, outputs, run, tasks, places))
    };
    (in_pieces(source).map(told), whole(source).map(told))
}

#[test]
fn a_file_is_taken_apart_where_that_is_possible() {
    let text = "[package]\nname = \"a\"\n[inputs]\nraw = { file = \"x\" }\n[tasks.one]\ncommand = \"a {raw}\"\n\
                code = [\"c\"]\ninputs = [\"raw\"]\n[tasks.one.env]\nA = \"b\"\n[outputs]\nout = \"two\"\n\
                [tasks.two]\ncommand = [\"b\"]\npass_env = [\"C\"]\nwritable = [\"raw\"]\neach = \"one\"\n";
    let (pieces, all) = both(text);
    assert_eq!(pieces.unwrap(), all.unwrap());
    // Another way to write it, and what is wrong.
    for other in [
        text.replace("[tasks.one.env]", "[tasks.two.env]"),
        text.replace("[tasks.two]", "[tasks.one]"),
        text.replace("[tasks.two]", "[tasks]\n[tasks.two]"),
        text.replace("[tasks.two]", "[tasks.raw]"),
        text.replace("A = ", "A = ="),
    ] {
        assert_ne!(other, text);
        assert_eq!(both(&other).0, None, "{other}");
    }
    let twice = text.replace("[tasks.two]", "[tasks.'one']");
    let message = parse(Path::new("e3.toml"), twice).unwrap_err().to_string();
    assert!(message.contains("e3.toml:13:"), "{message}");
}

/// Lines of which files are made, right and wrong ones.
const LINES: &[&str] = &[
    "[inputs]",
    "[tasks]",
    "[tasks.a]",
    "[tasks.b]",
    "[ tasks . c ]",
    "[tasks.'a']",
    "[tasks.\"b\"]",
    "[tasks.a.env]",
    "[tasks.b.env] # [tasks.x]",
    "[[tasks.a]]",
    "[outputs]",
    "[run]",
    "[tasks.a.env.c]",
    "command = 'a'",
    "command = 'a'",
    "command = ['a',",
    "'b', \"{x}\"]",
    "command = \"\"\"",
    "\"\"\"",
    "'''",
    "x = { file = 'y' }",
    "x.file = 'y'",
    "y = { json = [1,",
    "2] }",
    "A = 'b'",
    "out = 'a'",
    "inputs = ['x']",
    "code = [",
    "]",
    "tasks.d.command = 'd'",
    "a.command = 'e'",
    "# [tasks.e]",
    "",
    "}",
    "é",
    "\u{feff}",
    "\u{feff}x = { file = 'y' }",
];

/// Whole parts of files, which may stand in any order, most of them once.
const PARTS: &[&str] = &[
    "[inputs]\nx = { file = 'y' }",
    "[inputs] # [tasks.x]\nx.file = 'y'\n'w' = { json = [\n1] }\n# v\nu.json = [\n2,\n]\n\nt = { kind = 'dir' }",
    "[inputs.z]\njson = [\n[1], { a = '[tasks.no]' },\n]",
    "[tasks.a]\ncommand = 'a {x}'\ncode = ['c']",
    "[tasks.a.env]\nA = 'b'",
    "[tasks.b]\ncommand = \"\"\"\n[tasks.z]\n\"\"\" # ]",
    "  [ tasks . 'c' ]\ncommand = [\n'c', # [tasks.x]\n'{a}']",
    "[tasks.d]\nenv.B = 'c'\ncommand = 'd'\ninputs = ['x',\n'b']",
    "[outputs]\nout = 'a'",
    "[run]\njobs = 2",
    "# [tasks.e]\n\n",
    "[tasks]",
];

proptest! {
    #[test]
    fn the_pieces_say_what_the_whole_says(
        lines in prop::collection::vec(
            prop_oneof![8 => prop::sample::select(PARTS), 1 => prop::sample::select(LINES)],
            0..9,
        ),
        separator in prop::sample::select(&["\n", "\r\n", " \n\t"]),
    ) {
        let text = format!("[package]\nname = \"p\"\n{}", lines.join(separator));
        let (pieces, all) = both(&text);
        match (pieces, all) {
            (Some(pieces), all) => prop_assert_eq!(pieces, all.unwrap()),
            // Only what is written in another way.
            (None, Ok(_)) => prop_assert!(lines.iter().any(|line| line.starts_with("[tasks")), "{}", text),
            (None, Err(_)) => {}
        }
    }
}

/// A reader that gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at_most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..at_most])
    }
}

#[test]
fn the_letters_are_found_wherever_a_piece_ends() {
    for step in [1, 2, 3, 5, 1000] {
        let found = |text: &[u8]| may_have_run_settings(Slow(text, step)).unwrap();
        assert!(found(b"[run]") && found(b"xxxxrun") && found(b"rrun") && found(b"a\\b"), "{step}");
        assert!(!found(b"") && !found(b"ru") && !found(b"ru n ur nu rn"), "{step}");
        let mut long = vec![b'r'; 200_000];
        assert!(!found(&long), "{step}");
        long.extend(b"un");
        assert!(found(&long), "{step}");
    }
}

#[test]
fn settings_of_runs_are_found_however_they_are_written() {
    let package = "[package]\nname = \"a\"\n";
    for settings in [
        "[run]\njobs = 7",
        "  [ run ]\njobs = 7",
        "[\"run\"]\njobs = 7",
        "['run']\njobs = 7",
        "[\"r\\u0075n\"]\njobs = 7",
    ] {
        let found = run_settings(Path::new("e3.toml"), &format!("{package}{settings}\n")).unwrap();
        assert_eq!(found.jobs.map(std::num::NonZeroUsize::get), Some(7), "{settings}");
    }
    for settings in ["run.jobs = 7", "run = { jobs = 7 }", "\"run\".jobs = 7"] {
        let found = run_settings(Path::new("e3.toml"), &format!("{settings}\n{package}")).unwrap();
        assert_eq!(found.jobs.map(std::num::NonZeroUsize::get), Some(7), "{settings}");
    }
    // Nothing of this is even read.
    let found = run_settings(Path::new("e3.toml"), "[tasks.run]\ncommand = [\n").unwrap();
    assert_eq!(found.jobs, None);
}
