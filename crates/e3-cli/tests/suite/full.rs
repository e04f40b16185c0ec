//! A disk that is full, at whatever is being written; a repository that cannot be written to,
//! or is gone.
//!
//! Needs the permission to mount; without it, the tests say so and test nothing.
#![cfg(target_os = "linux")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::project::Project;

/// A small file system, mounted on a folder of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(kib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "e3-test"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: no permission to mount a small file system");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(unmounted.unwrap().success(), "somebody still uses it");
    }
}

/// Writes of every kind: a tracked file and folder, private copies, logs, outputs that are adopted, put, and placed.
const PIPELINE: &str = "[package]\nname = \"full\"\n[run]\njobs = 1\n\
    [inputs]\nbig = { file = \"big\" }\nmany = { dir = \"many\" }\n\
    [tasks.private]\ncommand = \"echo more >> {big}; mv {big} {output}\"\nwritable = [\"big\"]\n\
    [tasks.says]\ncommand = \"head -c 200000 /dev/zero; echo said > {output}\"\ninputs = [\"private\"]\n\
    [tasks.tree]\ncommand = \"cp -r {many} {output}; head -c 150000 /dev/zero > {output}/large\"\noutput = \"dir\"\ninputs = [\"says\"]\n\
    [tasks.value]\ncommand = \"printf '[' > {output}; yes 1, | head -n 30000 >> {output}; echo '1]' >> {output}\"\noutput = \"json\"\ninputs = [\"tree\"]\n\
    [outputs]\n\"out/tree\" = \"tree\"\n\"out/private\" = \"private\"\n";

fn project_on(disk: &Disk) -> std::io::Result<()> {
    fs::write(disk.path().join("e3.toml"), PIPELINE)?;
    fs::write(disk.path().join("big"), vec![b'x'; 200_000])?;
    fs::create_dir(disk.path().join("many"))?;
    (0..20).try_for_each(|number| {
        fs::write(disk.path().join(format!("many/{number}")), format!("file {number}\n"))
    })
}

/// Where it struck: the words of an error, without what is different every time.
fn point(error: &str) -> String {
    let is_word =
        |word: &&str| word.chars().all(|letter| letter.is_ascii_alphabetic() || ",:".contains(letter));
    let words = error.split(' ').filter(|word| word.len() > 1).filter(is_word);
    words.take(8).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_full_disk_is_told_as_one_and_loses_nothing_wherever_it_strikes() {
    let home = Project::new("");
    let mut points = BTreeSet::new();
    let mut passed = 0;
    for kib in (340..2400).step_by(60) {
        let Some(disk) = Disk::mount(kib) else { return };
        project_on(&disk).unwrap();
        let at = ["-C", disk.path().to_str().unwrap()];
        let e3 = |arguments: &[&str]| home.e3(&[&at[..], arguments].concat());
        let said = e3(&["run"]);
        match said.code {
            Some(0) => passed += 1,
            Some(8) => {
                let error = said
                    .stderr
                    .lines()
                    .find(|line| line.contains("pace left") || line.contains("disk is full"));
                let error = error.unwrap_or_else(|| panic!("with {kib} KiB: {said:?}"));
                points.insert(point(error));
            }
            _ => panic!("with {kib} KiB: {said:?}"),
        }
        disk.remount("size=64m");
        let said = e3(&["run"]);
        assert_eq!(said.code, Some(0), "with {kib} KiB, after there was room again: {said:?}");
        assert_eq!(fs::read_to_string(disk.path().join("out/tree/7")).unwrap(), "file 7\n");
        assert_eq!(fs::metadata(disk.path().join("out/private")).unwrap().len(), 200_005);
        let said = e3(&["verify"]);
        assert!(said.stdout.contains("all sound"), "with {kib} KiB: {said:?}");
        for folder in ["scratch", "tmp", "owners"] {
            assert_eq!(fs::read_dir(disk.path().join(".e3").join(folder)).unwrap().count(), 0, "{folder}");
        }
    }
    println!("struck at: {points:#?}; enough room {passed} times");
    assert!(points.len() >= 4 && passed > 0, "{points:?}");
}

#[test]
fn a_task_that_fills_the_disk_is_told_so_and_the_next_one_has_room_again() {
    let Some(disk) = Disk::mount(2000) else { return };
    let home = Project::new("");
    let pipeline = "[package]\nname = \"full\"\n[tasks.hog]\ncommand = \"cat /dev/zero > {output}\"\n\
        [tasks.small]\ncommand = \"echo small > {output}\"\n";
    fs::write(disk.path().join("e3.toml"), pipeline).unwrap();
    let at = disk.path().to_str().unwrap();
    let said = home.e3(&["-C", at, "run", "-j1", "--keep-going"]);
    assert_eq!(said.code, Some(8), "{said:?}");
    // Whoever noticed first: the task, or the log of what it had to say about it.
    assert!(said.stderr.contains("failed hog: ") && said.stderr.contains("o space left"), "{said:?}");
    assert_eq!(home.done(&["-C", at, "get", "small"]).stdout, "small\n");
}

#[test]
fn a_repository_that_is_read_only_or_gone_is_told_as_such() {
    let Some(disk) = Disk::mount(8000) else { return };
    let home = Project::new("");
    project_on(&disk).unwrap();
    let at = disk.path().to_str().unwrap();
    disk.remount("ro");
    let said = home.e3(&["-C", at, "run"]);
    assert_eq!(said.code, Some(8), "{said:?}");
    assert!(said.stderr.contains("ead-only file system") && said.stderr.contains(".e3"), "{said:?}");
    disk.remount("rw");
    home.done(&["-C", at, "run"]);
    disk.remount("ro");
    fs::write(home.at("x"), "x").unwrap();
    for command in [&["run"][..], &["start", "--force"], &["set", "big", "x"]] {
        let said = home.e3(&[&["-C", at], command].concat());
        assert_eq!(said.code, Some(8), "{command:?}: {said:?}");
    }
    disk.remount("rw");
    fs::rename(disk.path().join(".e3"), disk.path().join("elsewhere")).unwrap();
    let said = home.e3(&["-C", at, "status"]);
    assert_eq!(said.code, Some(3), "{said:?}");
}
