//! Scratch folders: used again, left, and given up.

use std::os::unix::fs::symlink;

use super::*;

fn scratches() -> (tempfile::TempDir, Scratches) {
    let folder = tempfile::tempdir().unwrap();
    let scratches = Scratches::new(folder.path().to_owned());
    (folder, scratches)
}

#[test]
fn a_folder_is_used_again_and_is_empty_then() {
    let (folder, scratches) = scratches();
    let first = scratches.take().unwrap();
    let path = first.path().to_owned();
    fs::write(first.work().join("inputs/a"), "x").unwrap();
    fs::create_dir_all(first.work().join("deep/inputs")).unwrap();
    fs::write(first.work().join("deep/inputs/b"), "x").unwrap();
    fs::write(first.temporary().join("c"), "x").unwrap();
    symlink("/", first.temporary().join("inputs")).unwrap();
    scratches.give_back(first).unwrap();
    let second = scratches.take().unwrap();
    assert_eq!(second.path(), path);
    let entries = |path: &Path| fs::read_dir(path).unwrap().count();
    let counts =
        [entries(&second.work()), entries(&second.work().join("inputs")), entries(&second.temporary())];
    assert_eq!(counts, [1, 0, 0]);
    assert_ne!(scratches.take().unwrap().path(), path, "it is in use");
    scratches.give_back(second).unwrap();
    drop(scratches);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what was not given back stays");
}

#[test]
fn inputs_are_left_unless_something_of_the_task_may_be_at_work_there() {
    let (folder, scratches) = scratches();
    let staged = folder.path().join("staged");
    let scratches = scratches.with_staged(staged.clone());
    let task = Hash::of(b"task");
    for (is_retired, stays) in [(false, true), (true, false), (false, true)] {
        let mut scratch = scratches.take_for(task, MANY).unwrap();
        let path = scratch.path().to_owned();
        fs::write(scratch.work().join("inputs/a"), "x").unwrap();
        scratch.stay_for(task);
        scratch.retire(is_retired);
        scratch.examine();
        scratches.give_back(scratch).unwrap();
        assert!(!path.exists());
        assert_eq!(staged.join(task.to_string()).join("work/inputs/a").exists(), stays);
    }
    assert!(!scratches.take_for(task, MANY - 1).unwrap().has_inputs());
    assert!(!scratches.take_for(Hash::of(b"another"), MANY).unwrap().has_inputs());
    assert!(scratches.take_for(task, MANY).unwrap().has_inputs());
    assert!(!scratches.take_for(task, MANY).unwrap().has_inputs());
}

#[test]
fn one_that_a_task_has_rebuilt_is_not_used_again() {
    fn attribute(folder: &Path) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(folder, "user.left", b"x", flags).unwrap();
    }
    let spoil: [fn(&mut Scratch); 6] = [
        |scratch| scratch.retire(true),
        |scratch| attribute(&scratch.work()),
        |scratch| attribute(&scratch.temporary()),
        |scratch| fs::remove_dir(scratch.work().join("inputs")).unwrap(),
        |scratch| fs::set_permissions(scratch.temporary(), fs::Permissions::from_mode(0o500)).unwrap(),
        |scratch| {
            fs::remove_dir(scratch.temporary()).unwrap();
            symlink("/tmp", scratch.temporary()).unwrap();
        },
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let (_folder, scratches) = scratches();
        let mut scratch = scratches.take().unwrap();
        let path = scratch.path().to_owned();
        spoil(&mut scratch);
        scratch.examine();
        scratches.give_back(scratch).unwrap();
        assert!(!path.exists(), "{number}");
        assert_ne!(scratches.take().unwrap().path(), path);
    }
}
