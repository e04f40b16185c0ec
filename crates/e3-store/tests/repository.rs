//! What is particular to a repository in a folder: its format, its files, and what altered files mean.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use e3_core::{
    Access, ObjectError, ObjectStoreExt, RefChange, RefName, Source, StageItem, StorageBackend, SystemClock,
};
use e3_store::{LocalStorage, OpenError};
use e3_types::ObjectRef;
use tokio::task::JoinSet;

fn create(root: &Path) -> LocalStorage {
    LocalStorage::create(root, &SystemClock).unwrap()
}

fn object_path(root: &Path, object: &ObjectRef) -> std::path::PathBuf {
    let digits = object.hash.to_string();
    root.join("objects").join(&digits[..2]).join(&digits[2..])
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let name = || RefName::new(&[&"a", &"b"]);
    let storage = create(folder.path());
    storage.refs().write(vec![RefChange::set(name(), "value")]).await.unwrap();
    let object = storage.objects().put_bytes("object").await.unwrap();
    storage.sync().await.unwrap();
    drop(storage);
    let storage = LocalStorage::open(folder.path(), &SystemClock).unwrap();
    assert_eq!(storage.refs().read(&[name()]).await.unwrap()[0].as_deref(), Some(&b"value"[..]));
    assert_eq!(storage.objects().get_bytes(&object.hash, 100).await.unwrap(), "object");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(create(folder.path()));
    let database = folder.path().join("db.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    for opened in
        [LocalStorage::open(folder.path(), &SystemClock), LocalStorage::create(folder.path(), &SystemClock)]
    {
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 99, known: 4, .. }), "{error}");
        assert!(error.to_string().contains("use a newer e3"), "{error}");
    }
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
    connection.pragma_update(None, "user_version", 1).unwrap();
    let error = LocalStorage::open(folder.path(), &SystemClock).unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 1, known: 4, .. }), "{error}");
}

#[test]
fn a_database_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("db.sqlite")).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    drop(connection);
    assert!(matches!(LocalStorage::open(folder.path(), &SystemClock), Err(OpenError::Foreign { .. })));
}

#[test]
fn no_repository_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(LocalStorage::open(folder.path(), &SystemClock), Err(OpenError::NotFound(_))));
}

#[tokio::test]
async fn objects_are_read_only_files_under_their_hash_and_adopted_by_rename() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    let source = storage.scratch().unwrap().join("output");
    fs::write(&source, "output").unwrap();
    let inode = fs::metadata(&source).unwrap().ino();
    let object = storage.objects().put(Source::Adopt(source)).await.unwrap();
    let metadata = fs::metadata(object_path(folder.path(), &object)).unwrap();
    assert_eq!(metadata.ino(), inode, "the file itself was moved");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
}

#[tokio::test]
async fn another_name_of_an_object_is_read_but_not_written() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    let object = storage.objects().put_bytes(vec![b'x'; 100_000]).await.unwrap();
    let inode = || fs::metadata(object_path(folder.path(), &object)).unwrap().ino();
    let (before, link) = (inode(), folder.path().join("link"));
    fs::hard_link(object_path(folder.path(), &object), &link).unwrap();
    // Whatever is written to the store is written in there first.
    for incoming in fs::read_dir(folder.path().join("tmp")).unwrap() {
        fs::remove_dir_all(incoming.unwrap().path()).unwrap();
    }
    assert_eq!(storage.objects().put(Source::Adopt(link.clone())).await.unwrap(), object);
    assert!(!link.exists());
    assert_eq!(inode(), before);
}

#[tokio::test]
async fn files_are_staged_without_copying() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    for (size, executable, links) in [(100_000, false, 2), (100_000, true, 2), (10, false, 2)] {
        let object = storage.objects().put_bytes(vec![b'x'; size]).await.unwrap();
        let to = storage.scratch().unwrap().join(format!("{size} {executable}"));
        let item =
            StageItem { hash: object.hash, size: None, to: to.clone(), access: Access::ReadOnly, executable };
        storage.objects().stage_many(&[item]).await.unwrap();
        assert_eq!(fs::metadata(&to).unwrap().nlink(), links, "{size} {executable}");
        let own = fs::metadata(object_path(folder.path(), &object)).unwrap();
        assert_eq!(own.permissions().mode() & 0o777, 0o444, "the object itself never becomes executable");
    }
}

#[tokio::test]
async fn an_object_whose_file_was_written_to_is_never_served_and_can_be_put_again() {
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    let bytes = vec![b'x'; 100_000];
    let object = storage.objects().put_bytes(bytes.clone()).await.unwrap();
    let path = object_path(folder.path(), &object);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut altered = bytes.clone();
    altered[5] = b'y';
    fs::write(&path, &altered).unwrap();

    assert_eq!(storage.objects().stat(&object.hash).await.unwrap(), None);
    let to = storage.scratch().unwrap().join("staged");
    let item = StageItem { hash: object.hash, size: None, to, access: Access::ReadOnly, executable: false };
    let error = storage.objects().stage_many(&[item]).await.unwrap_err();
    assert!(matches!(error, ObjectError::NotFound(_)), "{error}");
    assert!(storage.objects().get(&object.hash, 0..1).await.is_err());
    let aside: Vec<_> = fs::read_dir(folder.path().join("quarantine")).unwrap().map(Result::unwrap).collect();
    assert_eq!(aside.len(), 1, "nothing is lost");
    assert_eq!(fs::read(aside[0].path()).unwrap(), altered);
    storage.objects().put_bytes(bytes.clone()).await.unwrap();
    assert_eq!(storage.objects().get_bytes(&object.hash, u64::MAX).await.unwrap(), bytes);
}

#[tokio::test]
async fn an_object_that_only_lost_its_seal_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    let object = storage.objects().put_bytes("touched").await.unwrap();
    let path = object_path(folder.path(), &object);
    for break_seal in ["touch", "chmod"] {
        match break_seal {
            "touch" => fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
            _ => fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap(),
        }
        assert_eq!(storage.objects().get_bytes(&object.hash, 100).await.unwrap(), "touched");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    }
    assert!(!folder.path().join("quarantine").exists());
}

#[tokio::test]
async fn nothing_of_a_process_is_left_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(create(folder.path()));
    storage.objects().put_bytes("object").await.unwrap();
    storage.scratch().unwrap();
    drop(storage);
    for kind in ["owners", "scratch", "tmp"] {
        assert_eq!(fs::read_dir(folder.path().join(kind)).unwrap().count(), 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_that_many_stage_for_the_first_time_at_once_is_there_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let storages = [Arc::new(create(&folder.path().join("r"))), Arc::new(create(&folder.path().join("r")))];
    for round in 0..40 {
        let sources = (0..50).map(|number| Source::Bytes(format!("{round} {number}").into())).collect();
        let objects = storages[0].objects().put_many(sources).await.unwrap();
        let to = folder.path().join(round.to_string());
        fs::create_dir(&to).unwrap();
        let stage = |number: usize| {
            let storage = Arc::clone(&storages[number % 2]);
            let item = |object: &ObjectRef| StageItem {
                hash: object.hash,
                size: Some(object.size),
                to: to.join(format!("{number} {}", object.hash)),
                access: Access::ReadOnly,
                executable: false,
            };
            let items: Vec<_> = objects.iter().take(20).map(item).collect();
            async move { storage.objects().stage_many(&items).await }
        };
        let staging: JoinSet<_> = (0..8).map(stage).collect();
        for staged in staging.join_all().await {
            assert_eq!(staged.unwrap().len(), 20);
        }
    }
}
