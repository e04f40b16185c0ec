//! Tracking: source files become objects, and are read only when they have changed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use e3_core::{Clock, Looks, MemoryStorage, ObjectStoreExt, StorageBackend, TreeEntry, read_tree};
use e3_pipeline::{Project, Sources, StatCache, TrackReport, build, parse};
use e3_types::{FileEntry, Kind, ObjectRef, Timestamp};
use tempfile::TempDir;

/// Long after every file of the test was written, so that none of them is racy.
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(e3_core::SystemClock.now().unix_ms() + 3_600_000)
    }

    fn entropy(&self) -> [u8; 10] {
        [0; 10]
    }
}

struct Folder {
    folder: TempDir,
    storage: MemoryStorage,
    pipeline: String,
}

impl Folder {
    fn new(pipeline: &str) -> Self {
        let pipeline = format!("[package]\nname = \"p\"\n{pipeline}");
        Self { folder: tempfile::tempdir().unwrap(), storage: MemoryStorage::default(), pipeline }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// With the cache as the last time left it.
    async fn track(&self) -> Result<TrackReport, String> {
        self.track_some(None).await
    }

    /// Those of these numbers, if any are given.
    async fn track_some(&self, numbers: Option<&[usize]>) -> Result<TrackReport, String> {
        let pipeline = parse(Path::new("e3.toml"), &*self.pipeline).unwrap();
        let built = build(pipeline, |_| None).unwrap();
        let saved = self.folder.path().join(".e3/cache");
        let project =
            Project { folder: self.folder.path().to_owned(), repository: self.folder.path().join(".e3") };
        let sources = Sources::look(&project, &built.tracked).await.map_err(|error| error.to_string())?;
        let cache = StatCache::at(&saved);
        let report = match numbers {
            Some(numbers) => sources.track_some(&self.storage, &Later, cache, numbers).await,
            None => sources.track(&self.storage, &Later, cache).await,
        };
        report.map_err(|error| error.to_string())
    }

    async fn object(&self, dataset: &str) -> ObjectRef {
        let report = self.track().await.unwrap();
        report.values.into_iter().find(|value| value.path.as_str() == dataset).unwrap().object
    }

    async fn tree(&self, dataset: &str) -> Vec<(String, TreeEntry)> {
        let root = self.object(dataset).await;
        let entries = read_tree(self.storage.objects(), &root).await.unwrap();
        entries.into_iter().map(|(path, entry)| (path.to_str().unwrap().to_owned(), entry)).collect()
    }

    async fn failure(&self) -> String {
        self.track().await.unwrap_err().lines().next().unwrap().to_owned()
    }
}

fn file(text: &str, executable: bool) -> TreeEntry {
    TreeEntry::File(FileEntry { object: ObjectRef::of(text.as_bytes()), executable })
}

#[tokio::test]
async fn an_unchanged_file_is_not_read_again_and_a_changed_one_is() {
    let sources = Folder::new("[inputs]\na = { file = \"a.txt\" }\nd = { dir = \"d\" }\n");
    sources.write("a.txt", "a");
    sources.write("d/x", "x");
    sources.write("d/y", "y");
    let report = sources.track().await.unwrap();
    assert_eq!((report.files, report.read), (3, 3));
    assert_eq!(report.values[0].object, ObjectRef::of(b"a"));
    assert_eq!(report.values[0].kind, Kind::File);
    let report = sources.track().await.unwrap();
    assert_eq!((report.files, report.read), (3, 0));
    sources.write("d/y", "z");
    let report = sources.track().await.unwrap();
    assert_eq!((report.files, report.read), (3, 1));
}

#[tokio::test]
async fn of_a_folder_of_many_small_files_only_those_are_read_that_have_changed() {
    let sources = Folder::new("[inputs]\na = { file = \"a.txt\" }\nd = { dir = \"d\" }\n");
    sources.write("a.txt", "a");
    for number in 0..50 {
        sources.write(&format!("d/{number}"), "x");
    }
    sources.track().await.unwrap();
    sources.write("d/7", "y");
    sources.write("a.txt", "b");
    let read = async |number| sources.track_some(Some(&[number])).await.unwrap().read;
    assert_eq!((read(0).await, read(1).await), (1, 1));
}

#[tokio::test]
async fn an_object_that_is_gone_from_the_store_is_put_again() {
    let sources = Folder::new("[inputs]\na = { file = \"a.txt\" }\n");
    sources.write("a.txt", "a");
    let object = sources.object("a").await;
    let some_day = Timestamp::from_unix_ms(u64::MAX);
    sources.storage.objects().delete_many(&[object.hash], some_day).await.unwrap();
    assert_eq!(sources.track().await.unwrap().read, 1);
    assert_eq!(sources.storage.objects().stat(&object.hash).await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_folder_keeps_files_modes_links_and_empty_folders() {
    let sources = Folder::new("[inputs]\nd = { dir = \"d\" }\n");
    sources.write("d/sub/x", "x");
    sources.write("d/run", "run");
    sources.write("d/with space\nand line", "odd");
    fs::create_dir(sources.folder.path().join("d/empty")).unwrap();
    fs::set_permissions(sources.folder.path().join("d/run"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("sub/x", sources.folder.path().join("d/link")).unwrap();
    let expected = [
        ("empty", TreeEntry::Dir),
        ("link", TreeEntry::Symlink("sub/x".to_owned())),
        ("run", file("run", true)),
        ("sub", TreeEntry::Dir),
        ("sub/x", file("x", false)),
        ("with space\nand line", file("odd", false)),
    ];
    assert_eq!(sources.tree("d").await, expected.map(|(path, entry)| (path.to_owned(), entry)));
}

#[tokio::test]
async fn a_mode_that_changes_is_a_change() {
    let sources = Folder::new("[inputs]\nd = { dir = \"d\" }\n");
    sources.write("d/x", "x");
    let before = sources.object("d").await;
    fs::set_permissions(sources.folder.path().join("d/x"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(sources.object("d").await, before);
}

#[tokio::test]
async fn what_a_folder_cannot_keep_is_refused_by_name() {
    let sources = Folder::new("[inputs]\nd = { dir = \"d\" }\n");
    sources.write("d/x", "x");
    let link = sources.folder.path().join("d/link");
    symlink("../../outside", &link).unwrap();
    let message = sources.failure().await;
    assert!(
        message.starts_with("e3.toml:4:1: d: `link` cannot be stored: the symbolic link points to"),
        "{message}"
    );
    fs::remove_file(&link).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(&link).status().unwrap();
    assert!(fifo.success());
    assert!(sources.failure().await.contains("`link` cannot be stored: it is a device, a socket or a fifo"));
    fs::remove_file(&link).unwrap();
    fs::write(sources.folder.path().join("d").join(OsStr::from_bytes(b"bad\xff")), "").unwrap();
    assert!(sources.failure().await.contains("its name is not UTF-8"));
}

#[tokio::test]
async fn sources_of_the_wrong_sort_are_told() {
    let sources = Folder::new("[inputs]\na = { file = \"a\" }\n");
    assert_eq!(sources.failure().await, "e3.toml:4:1: a: `a` does not exist");
    fs::create_dir(sources.folder.path().join("a")).unwrap();
    assert_eq!(sources.failure().await, "e3.toml:4:1: a: `a` is not a file: write `dir` for a folder");
    let sources = Folder::new("[inputs]\nd = { dir = \"d\" }\n");
    sources.write("d", "");
    assert_eq!(sources.failure().await, "e3.toml:4:1: d: `d` is not a folder: write `file` for a file");
}

#[tokio::test]
async fn code_is_files_folders_and_patterns_at_their_own_paths() {
    let task = |code: &str| format!("[tasks.t]\ncommand = \"x\"\ncode = {code}\n");
    let sources = Folder::new(&task(r#"["./run.sh", "lib", "src/*.py", "src/a.py"]"#));
    for path in ["run.sh", "lib/deep/x", "src/a.py", "src/b.py", "src/c.txt", "other"] {
        sources.write(path, path);
    }
    let expected = [
        ("lib", TreeEntry::Dir),
        ("lib/deep", TreeEntry::Dir),
        ("lib/deep/x", file("lib/deep/x", false)),
        ("run.sh", file("run.sh", false)),
        ("src", TreeEntry::Dir),
        ("src/a.py", file("src/a.py", false)),
        ("src/b.py", file("src/b.py", false)),
    ];
    assert_eq!(sources.tree("t.code").await, expected.map(|(path, entry)| (path.to_owned(), entry)));

    for (code, expected) in [
        (r#"["nope.py"]"#, "e3.toml:5:9: t.code: code `nope.py` matches no file of the project"),
        (r#"["*.rs"]"#, "e3.toml:5:9: t.code: code `*.rs` matches no file of the project"),
        (r#"["../x"]"#, "e3.toml:5:9: t.code: code `../x` must be a path inside the project folder"),
        (r#"["/etc/passwd"]"#, "e3.toml:5:9: t.code: code `/etc/passwd` must be a path inside"),
    ] {
        let sources =
            Folder { pipeline: format!("[package]\nname = \"p\"\n{}", task(code)), ..Folder::new("") };
        let message = sources.failure().await;
        assert!(message.starts_with(expected), "{message}");
    }
    let sources = Folder::new(&task(r#"["inputs/x"]"#));
    sources.write("inputs/x", "");
    assert!(sources.failure().await.contains("would stand where e3 puts the task's inputs"));
}

#[tokio::test]
async fn the_repository_is_never_part_of_a_dataset() {
    let sources = Folder::new("[inputs]\nall = { dir = \".\" }\n");
    sources.write("x", "x");
    sources.write(".e3/secret", "");
    let tree = sources.tree("all").await;
    assert_eq!(tree, [("x".to_owned(), file("x", false))]);
}

/// Whatever can be another content, or another folder, looks otherwise.
#[tokio::test]
async fn sources_look_the_same_only_while_nothing_is_done_to_them() {
    let sources = Folder::new("[inputs]\na = { file = \"a\" }\nd = { dir = \"d\" }\n");
    sources.write("a", "one");
    sources.write("d/x", "two");
    sources.write("d/sub/y", "three");
    let looks = async || sources.track().await.unwrap().looks;
    let at = |path: &str| sources.folder.path().join(path);
    let mut seen = vec![looks().await];
    assert_eq!(looks().await, seen[0]);
    let changes: [&dyn Fn(); 8] = [
        &|| sources.write("a", "another"),
        &|| fs::set_permissions(at("d/x"), fs::Permissions::from_mode(0o755)).unwrap(),
        &|| fs::rename(at("d/x"), at("d/z")).unwrap(),
        &|| fs::create_dir(at("d/empty")).unwrap(),
        &|| symlink("z", at("d/link")).unwrap(),
        &|| {
            fs::remove_file(at("d/link")).unwrap();
            symlink("sub", at("d/link")).unwrap();
        },
        &|| fs::rename(at("d/sub"), at("d/bus")).unwrap(),
        &|| fs::remove_file(at("d/bus/y")).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        change();
        let now = looks().await;
        assert!(!seen.contains(&now), "change {number} is not seen");
        seen.push(now);
    }
}

#[tokio::test]
async fn a_file_that_may_change_unseen_has_no_look() {
    let sources = Folder::new("[inputs]\na = { file = \"a\" }\n");
    sources.write("a", "one");
    let pipeline = parse(Path::new("e3.toml"), &*sources.pipeline).unwrap();
    let built = build(pipeline, |_| None).unwrap();
    let folder = sources.folder.path().to_owned();
    let project = Project { repository: folder.join(".e3"), folder };
    let cache = || StatCache::at(&project.repository.join("cache"));
    let looked = Sources::look(&project, &built.tracked).await.unwrap();
    // It was written just now: it may be written again in the same tick of the clock.
    let report = looked.track(&sources.storage, &e3_core::SystemClock, cache()).await.unwrap();
    assert_eq!(report.looks, Looks::new(vec![None]));
    let report = looked.track(&sources.storage, &Later, cache()).await.unwrap();
    assert_eq!((report.read, report.looks), (1, looked.looks()));
}
