//! What a process is confined to, and how that is told to the launcher.
//!
//! Limits and sandboxes have to be put on by the process itself, between its start and its program. Code cannot stand there
//! without giving up `posix_spawn`, so a program does: the *launcher*, which is started in place of a process that is
//! confined, and in place of no other.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

/// What a process may use and see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// How large its address space may be, in bytes: `RLIMIT_AS`.
    pub memory: Option<u64>,
    /// How many files it may have open at once: `RLIMIT_NOFILE`.
    pub open_files: Option<u64>,
    /// How much CPU time it may use, in whole seconds: `RLIMIT_CPU`.
    pub cpu: Option<Duration>,
    /// What it may see.
    pub sandbox: Option<Sandbox>,
}

/// What a process in a sandbox may see: these folders, and the read-only folders of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The folders that it may write to.
    pub writable: Vec<PathBuf>,
    /// The folders that it may read beside those of the system.
    pub readable: Vec<PathBuf>,
    /// Whether it has a network.
    pub network: bool,
}

/// The argument with which the launcher is started: a program that calls `launch` with the arguments behind it.
pub const LAUNCH: &str = "internal-launch";

impl Confinement {
    /// Whether nothing is confined.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a launcher is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) confinement: Confinement,
    /// Where it says what went wrong, if something did.
    pub(crate) complaint: PathBuf,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

impl Launch {
    /// The arguments of the launcher, without its name.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec![LAUNCH.into(), "--complaint".into(), self.complaint.clone().into()];
        let mut word = |name: &str, value: OsString| words.extend([name.into(), value]);
        let Confinement { memory, open_files, cpu, sandbox } = &self.confinement;
        for (name, number) in
            [("--memory", *memory), ("--open-files", *open_files), ("--cpu", cpu.map(seconds))]
        {
            if let Some(number) = number {
                word(name, number.to_string().into());
            }
        }
        if let Some(Sandbox { writable, readable, network }) = sandbox {
            word("--sandbox", if *network { "network" } else { "no-network" }.into());
            for path in writable {
                word("--writable", path.into());
            }
            for path in readable {
                word("--readable", path.into());
            }
        }
        words.push("--".into());
        words.push(self.program.clone());
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// Reads them back, from behind the first.
    pub(crate) fn from_arguments(words: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let mut words = words.into_iter();
        let wrong =
            |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("the launcher expects {what}"));
        let mut launch = Self::default();
        loop {
            let name = words.next().ok_or_else(|| wrong("a program"))?;
            if name == "--" {
                break;
            }
            let value = words.next().ok_or_else(|| wrong("a value for each option"))?;
            let number = || value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| wrong("numbers"));
            let sandbox = &mut launch.confinement.sandbox;
            match name.to_str().unwrap_or_default() {
                "--complaint" => launch.complaint = value.into(),
                "--memory" => launch.confinement.memory = Some(number()?),
                "--open-files" => launch.confinement.open_files = Some(number()?),
                "--cpu" => launch.confinement.cpu = Some(Duration::from_secs(number()?)),
                "--sandbox" => sandbox.get_or_insert_default().network = value == "network",
                "--writable" => sandbox.get_or_insert_default().writable.push(value.into()),
                "--readable" => sandbox.get_or_insert_default().readable.push(value.into()),
                _ => return Err(wrong("only options that it knows")),
            }
        }
        launch.program = words.next().ok_or_else(|| wrong("a program"))?;
        launch.arguments = words.collect();
        Ok(launch)
    }
}

/// In whole seconds, at least one.
fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_is_told_is_what_it_reads() {
        let sandbox = Sandbox {
            writable: vec!["/a b".into(), "--".into()],
            readable: vec!["/c".into()],
            network: true,
        };
        let launch = Launch {
            confinement: Confinement {
                memory: Some(1 << 40),
                open_files: Some(20),
                cpu: Some(Duration::from_secs(3)),
                sandbox: Some(sandbox),
            },
            complaint: "/x".into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), "--memory".into()],
        };
        let mut words = launch.to_arguments();
        assert_eq!(words.remove(0), LAUNCH);
        assert_eq!(Launch::from_arguments(words).unwrap(), launch);
        let plain = Launch { program: "x".into(), ..Launch::default() };
        assert_eq!(Launch::from_arguments(plain.to_arguments().split_off(1)).unwrap(), plain);
        assert!(Launch::from_arguments(["--memory".into()]).is_err());
        assert!(Launch::from_arguments(["--other".into(), "1".into(), "--".into(), "x".into()]).is_err());
    }
}
