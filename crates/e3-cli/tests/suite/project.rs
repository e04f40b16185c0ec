//! A project for a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub(crate) struct Project {
    folder: TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// The JSON document on standard output, which must be all that is there.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Both streams with every duration replaced by `TIME`, every moment by `WHEN` and every id by `ID`.
    pub(crate) fn steady(&self) -> String {
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        steady(&format!("exit {code}\n{}{}", self.stdout, self.stderr))
    }
}

/// Replaces moments such as 2026-11-24T10:42:00Z.
fn timeless(line: &str) -> String {
    const SHAPE: &str = "0000-00-00T00:00:00Z";
    let is_moment = |text: &str| {
        text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).eq(SHAPE.chars())
    };
    let mut out = line.to_owned();
    while let Some(at) = (0..out.len()).find(|&at| out.get(at..at + SHAPE.len()).is_some_and(is_moment)) {
        out.replace_range(at..at + SHAPE.len(), "WHEN");
    }
    out
}

fn steady(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(timeless) {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_end_matches([';', ')', ',']).to_owned();
            if matches!(unit.as_str(), "ms" | "s") && words[at - 1].parse::<f64>().is_ok() {
                "TIME".clone_into(&mut words[at - 1]);
                words[at].drain(..unit.len());
            }
        }
        let line = words.join(" ").replace("TIME ", "TIME");
        let line: Vec<_> = line
            .split(' ')
            .map(|word| if word.len() == 36 && word.matches('-').count() == 4 { "ID" } else { word })
            .collect();
        out += line.join(" ").trim_end();
        out.push('\n');
    }
    out
}

impl Project {
    /// A project with this pipeline file.
    pub(crate) fn new(pipeline: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("e3.toml", &format!("[package]\nname = \"test\"\n{pipeline}"));
        project
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// The command, to be started here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_e3"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for variable in
            ["E3_REPO", "E3_WORKSPACE", "E3_JOBS", "E3_COLOR", "E3_PROGRESS", "NO_COLOR", "CLICOLOR_FORCE"]
        {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn e3(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// The same for a command that must succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> Said {
        let said = self.e3(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said
    }

    /// Runs; returns how many tasks were executed and how many were cached.
    pub(crate) fn run_counts(&self) -> (u64, u64) {
        let document = self.done(&["run", "--json"]).json();
        (document["executed"].as_u64().unwrap(), document["cached"].as_u64().unwrap())
    }

    /// Makes a fifo. Opening it for writing returns when a task has opened it for reading.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// How many entries the folders have in which processes of e3 leave things while they live.
    pub(crate) fn leftovers(&self) -> usize {
        let count = |folder: &str| fs::read_dir(self.at(".e3").join(folder)).map_or(0, Iterator::count);
        count("scratch") + count("owners") + count("tmp")
    }
}

/// Waits until something holds that another process is about to bring about.
#[expect(clippy::disallowed_methods, reason = "the time of another process is real")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::yield_now();
    }
}

/// A number by which a longer test is asked for.
#[expect(clippy::disallowed_methods, reason = "a test is its own composition root")]
pub(crate) fn number_from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The living processes that work in a folder or have it in their environment; Linux only.
pub(crate) fn processes_in(folder: &Path) -> Vec<String> {
    let folder = fs::canonicalize(folder).unwrap().into_os_string().into_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let works_in = fs::read_link(path.join("cwd")).unwrap_or_default();
        let names = environment.windows(folder.len()).any(|part| part == folder);
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        if names || works_in.as_os_str().as_encoded_bytes().starts_with(&folder) {
            found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    found
}
