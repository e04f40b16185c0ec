//! `e3 verify`: what is corrupt is found and mended, and tasks that do not always make the same are found out.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
};

use crate::project::Project;

/// The file of an object.
fn object(project: &Project, bytes: &[u8]) -> std::path::PathBuf {
    let hash = e3_types::Hash::of(bytes).to_string();
    project.at(&format!(".e3/objects/{}/{}", &hash[..2], &hash[2..]))
}

/// Changes a byte of a file as a bad disk would: nothing else tells.
fn rot(path: &std::path::Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
    fs::set_permissions(path, metadata.permissions()).unwrap();
}

fn project() -> Project {
    let project = Project::new(
        "[inputs]\nraw = { file = \"raw\" }\n\
         [tasks.tree]\ncommand = \"mkdir -p {output}/sub; cp {raw} {output}/a; echo deep > {output}/sub/b\"\noutput = \"dir\"\n\
         [tasks.last]\ncommand = \"cat {tree}/a {tree}/sub/b > {output}\"\n[outputs]\n\"out\" = \"tree\"\n",
    );
    project.write("raw", "raw\n");
    project.run_counts();
    project
}

#[test]
fn what_is_corrupt_or_missing_is_found_and_mended() {
    let project = project();
    let said = project.done(&["verify"]);
    assert!(said.stdout.contains("all sound"), "{said:?}");
    for (bytes, what) in
        [(&b"deep\n"[..], "rot"), (b"deep\n", "remove"), (b"raw\n", "rot"), (b"raw\ndeep\n", "rot")]
    {
        let path = object(&project, bytes);
        if what == "rot" {
            rot(&path);
        } else {
            fs::remove_file(&path).unwrap();
        }
        let said = project.e3(&["verify"]);
        assert_eq!(said.code, Some(9), "{said:?}");
        let hash = e3_types::Hash::of(bytes).to_string();
        let named = if what == "rot" {
            format!("corrupt: object {hash}")
        } else {
            format!("object {hash} is not in the store")
        };
        assert!(said.stdout.contains(&named), "{named}: {said:?}");
        assert!(said.stderr.contains("next: e3 verify --repair"), "{said:?}");
        let said = project.done(&["verify", "--repair"]);
        assert!(said.stdout.contains("all sound"), "{said:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(project.done(&["get", "last"]).stdout, "raw\ndeep\n");
    }
    assert_eq!(fs::read_dir(project.at(".e3/quarantine")).unwrap().count(), 3, "nothing is lost");
}

#[test]
fn what_nobody_can_make_again_is_named() {
    let project =
        Project::new("[inputs]\nx = { kind = \"file\" }\n[tasks.a]\ncommand = \"cat {x} > {output}\"\n");
    project.write("value", "set by hand");
    project.run_with_value();
    fs::remove_file(object(&project, b"set by hand")).unwrap();
    let said = project.e3(&["verify", "--repair"]);
    assert_eq!(said.code, Some(9), "{said:?}");
    assert!(said.stdout.contains("`x` in workspace `main`: object"), "{said:?}");
    assert!(said.stderr.contains("what is left has to be set or imported again"), "{said:?}");
}

impl Project {
    fn run_with_value(&self) {
        self.e3(&["run"]);
        self.done(&["set", "x", "value"]);
        // Another value, so that the task's result is not the object as well.
        self.write("e3.toml", &self.read("e3.toml").replace("cat {x}", "wc -c < {x}"));
        self.done(&["run"]);
    }
}

#[test]
fn tasks_that_do_not_always_make_the_same_are_found_out() {
    let project = Project::new("");
    let tally = project.at("tally");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.steady]\ncommand = \"echo steady > {{output}}\"\n\
         [tasks.moody]\ncommand = \"echo x >> {tally}; printf 'same ' > {{output}}; wc -l < {tally} >> {{output}}\"\n\
         [tasks.tree]\ncommand = \"mkdir {{output}}; echo 1 > {{output}}/a; echo x >> {tally}; wc -l < {tally} > {{output}}/b\"\noutput = \"dir\"\n\
         [tasks.fails]\ncommand = \"[ ! -e {tally}.no ]; echo > {{output}}\"\n",
        tally = tally.display()
    );
    project.write("e3.toml", &pipeline);
    project.done(&["run", "-j1"]);
    project.write("tally.no", "");
    let said = project.e3(&["verify", "--sample", "100%"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("main/moody differs: byte 5 is the first that differs"), "{said:?}");
    assert!(
        said.stdout.contains("main/tree differs: entry `b`: byte 0 is the first that differs"),
        "{said:?}"
    );
    assert!(said.stdout.contains("main/fails failed: exited with code 1"), "{said:?}");
    assert!(said.stdout.contains("4 results were executed again: 1 the same, 3 not"), "{said:?}");
    assert_eq!(project.run_counts(), (0, 4), "what is cached is as it was");
    let document = project.e3(&["verify", "--sample", "1%", "--json"]).json();
    assert_eq!(document["sample"].as_array().unwrap().len(), 1);
    for share in ["0", "101%", "many"] {
        assert_eq!(project.e3(&["verify", "--sample", share]).code, Some(2));
    }
}

#[test]
fn what_was_made_of_something_corrupt_is_made_again_and_what_a_person_set_is_kept() {
    let project = Project::new(
        "[inputs]\nd = { kind = \"dir\" }\n[tasks.a]\ncommand = \"cat {d}/x > {output}\"\n\
         [tasks.b]\ncommand = \"cat {a} {a} > {output}\"\n",
    );
    project.write("folder/x", "one");
    project.write("folder/y", "two");
    project.e3(&["run"]);
    project.done(&["set", "d", "folder"]);
    project.done(&["run"]);
    // The output of `a` rots, and what is made of it is not to be trusted.
    rot(&object(&project, b"one"));
    let said = project.e3(&["verify"]);
    assert!(said.stdout.contains("results were made of corrupt objects"), "{said:?}");
    fs::remove_file(object(&project, b"two")).unwrap();
    let said = project.e3(&["verify", "--repair"]);
    assert_eq!(said.code, Some(9), "{said:?}");
    // The folder that a person set is not whole, but what there is of it is still there.
    project.write("two", "two");
    assert!(said.stdout.contains("`d` in workspace `main`"), "{said:?}");
    assert!(fs::read_dir(project.at(".e3/objects")).unwrap().count() > 0);
    project.done(&["set", "d", "folder"]);
    project.done(&["run"]);
    assert_eq!(project.done(&["get", "b"]).stdout, "oneone");
    assert!(project.done(&["verify"]).stdout.contains("all sound"));
}

#[test]
fn a_damaged_database_is_told_as_such() {
    let project = project();
    let database = project.at(".e3/db.sqlite");
    let mut bytes = fs::read(&database).unwrap();
    bytes[0..16].fill(b'x');
    fs::write(&database, bytes).unwrap();
    for command in ["verify", "status", "run"] {
        let said = project.e3(&[command]);
        assert_eq!(said.code, Some(9), "{command}: {said:?}");
    }
}

#[test]
fn work_in_a_sandbox_is_executed_again_in_one() {
    let outside = tempfile::tempdir().unwrap();
    let project = Project::new("");
    let pipeline = format!(
        "[package]\nname = \"test\"\n[tasks.a]\ncommand = \"echo x > {}/there || true; echo same > {{output}}\"\nsandbox = \"strict\"\n",
        outside.path().display()
    );
    project.write("e3.toml", &pipeline);
    project.done(&["run"]);
    project.done(&["verify", "--sample", "100%"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Changes a small object in the database; false if there is none with that text.
fn rot_row(project: &Project, text: &str, other: &str) -> bool {
    let connection = rusqlite::Connection::open(project.at(".e3/db.sqlite")).unwrap();
    let change = "UPDATE small SET bytes = CAST(replace(CAST(bytes AS TEXT), ?1, ?2) AS BLOB) WHERE hash = \
                  (SELECT hash FROM small WHERE instr(bytes, CAST(?1 AS BLOB)) LIMIT 1)";
    connection.execute(change, (text, other)).unwrap() == 1
}

#[test]
fn an_altered_row_is_no_object_and_is_made_again() {
    let mut pipeline = "[inputs]\nall = { dir = \"src\" }\n\
                        [tasks.names]\ncommand = \"find {all} -name evil > {output}\"\n"
        .to_owned();
    for number in 0..40 {
        pipeline += &format!("[tasks.t{number}]\ncommand = \"echo {number} > {{output}}\"\n");
    }
    let project = Project::new(&pipeline);
    for number in 0..40 {
        fs::create_dir_all(project.at(&format!("src/{number}"))).unwrap();
        project.write(&format!("src/{number}/name"), &format!("{number}\n"));
    }
    project.done(&["run"]);
    let is_right = || {
        assert_eq!(project.done(&["get", "names"]).stdout, "");
        for number in [7, 9] {
            assert_eq!(project.done(&["get", &format!("t{number}")]).stdout, format!("{number}\n"));
        }
        assert!(project.done(&["verify"]).stdout.contains("all sound"));
    };
    // Of a folder in the input, of a source file, of a task: a run makes it again, and so does a repair.
    for (text, other) in [("name", "evil"), ("17\n", "18\n"), ("echo 7", "echo 8")] {
        assert!(rot_row(&project, text, other));
        project.done(&["run", "--force"]);
        is_right();
    }
    for (text, other) in [("name", "evil"), ("27\n", "28\n"), ("echo 9", "echo 8")] {
        assert!(rot_row(&project, text, other));
        let said = project.e3(&["verify", "--repair"]);
        assert!(said.code == Some(0) && said.stdout.contains("all sound"), "{text}: {said:?}");
        is_right();
        project.done(&["run", "--force"]);
        is_right();
    }
}

#[test]
fn a_folder_in_a_folder_that_is_corrupt_is_found_at_all_that_it_is_part_of() {
    let project = project();
    let file = e3_types::FileEntry { object: e3_types::ObjectRef::of(b"deep\n"), executable: false };
    let entries = [("b".to_owned(), e3_types::DirEntry::File(file))].into();
    let sub = e3_types::Dir { entries }.encode();
    // Another name: a folder still, but another one.
    let (path, at) = (object(&project, &sub), sub.iter().position(|byte| *byte == b'b').unwrap());
    let (metadata, mut bytes) = (fs::metadata(&path).unwrap(), sub.clone());
    bytes[at] = b'c';
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
    fs::set_permissions(&path, metadata.permissions()).unwrap();

    let said = project.e3(&["verify"]);
    let hash = e3_types::Hash::of(&sub);
    assert_eq!(said.code, Some(9), "{said:?}");
    let problem = format!("`tree` in workspace `main`: object {hash} is corrupt");
    assert!(said.stdout.contains(&problem), "{problem}: {said:?}");
    assert!(project.done(&["verify", "--repair"]).stdout.contains("all sound"));
    assert_eq!(fs::read(&path).unwrap(), sub);
    assert_eq!(project.done(&["get", "last"]).stdout, "raw\ndeep\n");
}
