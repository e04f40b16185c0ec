//! What is particular to a repository in a folder: its format, its files, and what altered files mean.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use e3_core::{
    Access, ObjectError, ObjectStoreExt, RefChange, RefName, Source, StageItem, StorageBackend, SystemClock,
};
use e3_store::{LocalStorage, OpenError};
use e3_types::ObjectRef;
use futures::TryStreamExt;
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
        assert!(matches!(error, OpenError::Newer { found: 99, known: 5, .. }), "{error}");
        assert!(error.to_string().contains("use a newer e3"), "{error}");
    }
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
    connection.pragma_update(None, "user_version", 1).unwrap();
    let error = LocalStorage::open(folder.path(), &SystemClock).unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 1, known: 5, .. }), "{error}");
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
        let item = StageItem {
            hash: object.hash,
            size: None,
            to: to.clone(),
            access: Access::ReadOnly,
            executable,
            again: false,
        };
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
    let item = StageItem {
        hash: object.hash,
        size: None,
        to,
        access: Access::ReadOnly,
        executable: false,
        again: false,
    };
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
                again: false,
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

/// Puts objects that become rows, and damages one of them.
async fn with_a_damaged_row(root: &Path) -> (LocalStorage, Vec<ObjectRef>) {
    let storage = create(root);
    let sources = || (0..50).map(|number| Source::Bytes(format!("row {number}").into())).collect();
    let objects = storage.objects().put_many(sources()).await.unwrap();
    assert!(!object_path(root, &objects[7]).exists(), "it is a row");
    let connection = rusqlite::Connection::open(root.join("db.sqlite")).unwrap();
    let damage = "UPDATE small SET bytes = CAST('ROW 7' AS BLOB) WHERE hash = ?1";
    assert_eq!(connection.execute(damage, [objects[7].hash.as_bytes()]).unwrap(), 1);
    (storage, objects)
}

#[tokio::test]
async fn a_row_that_was_altered_is_never_served_and_can_be_put_again() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, objects) = with_a_damaged_row(folder.path()).await;
    let (store, damaged) = (storage.objects(), objects[7].hash);
    let hashes: Vec<_> = objects.iter().map(|object| object.hash).collect();
    for sizes in [store.stat_many(&hashes).await.unwrap(), store.stat_many(&hashes[7..8]).await.unwrap()] {
        assert_eq!(sizes.iter().filter(|size| size.is_none()).count(), 1);
    }
    assert!(matches!(store.get(&damaged, 0..9).await.map(drop), Err(ObjectError::NotFound(_))));
    let to = folder.path().join("staged");
    let (size, access) = (None, Access::ReadOnly);
    let item = StageItem { hash: damaged, size, to: to.clone(), access, executable: false, again: false };
    let staged = store.stage_many(std::slice::from_ref(&item)).await;
    assert!(matches!(staged, Err(ObjectError::NotFound(_))) && !to.exists());
    // Together with others, as a row; alone it gets a file.
    let sources = (0..50).map(|number| Source::Bytes(format!("row {number}").into())).collect();
    assert_eq!(store.put_many(sources).await.unwrap(), objects);
    assert_eq!(store.get_bytes(&damaged, 9).await.unwrap(), "row 7");
    store.stage_many(&[item]).await.unwrap();
    assert_eq!(fs::read(to).unwrap(), b"row 7");
}

#[tokio::test]
async fn a_row_that_was_altered_is_put_aside_when_all_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, objects) = with_a_damaged_row(folder.path()).await;
    // Also if the object has a sound file as well.
    storage.objects().put_bytes("row 7").await.unwrap();
    let stamp = storage.object_stamp().await.unwrap();
    let listed =
        async || -> Vec<ObjectRef> { storage.objects().list().await.unwrap().try_collect().await.unwrap() };
    assert_eq!(listed().await.len(), 50);
    let aside = storage.quarantined().unwrap();
    let expected = format!("{}-{}", objects[7].hash, ObjectRef::of(b"ROW 7").hash);
    assert_eq!(aside.into_iter().collect::<Vec<_>>(), [expected]);
    assert_ne!(storage.object_stamp().await.unwrap(), stamp);
    fs::remove_file(object_path(folder.path(), &objects[7])).unwrap();
    assert_eq!(listed().await.len(), 49);
    assert_eq!(storage.objects().stat(&objects[7].hash).await.unwrap(), None);
}

#[tokio::test]
async fn an_object_is_as_young_as_the_younger_of_its_row_and_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let storage = create(folder.path());
    let sources = (0..50).map(|number| Source::Bytes(format!("row {number}").into())).collect();
    let objects = storage.objects().put_many(sources).await.unwrap();
    let (first, second) = (objects[0].hash, objects[1].hash);
    storage.objects().put_bytes("row 0").await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("db.sqlite")).unwrap();
    connection.execute("UPDATE small SET put = 5", []).unwrap();
    let delete = |than: u64| {
        let than = e3_types::Timestamp::from_unix_ms(than);
        let objects = storage.objects();
        async move { objects.delete_many(&[first, second, first], than).await.unwrap() }
    };
    assert_eq!(delete(5).await, 0);
    assert_eq!(delete(6).await, 1, "the file of the other is younger");
    assert_eq!(storage.objects().stat_many(&[first, second]).await.unwrap(), [Some(5), None]);
    assert_eq!(delete(u64::MAX).await, 1);
    assert_eq!(storage.objects().stat_many(&[first, second]).await.unwrap(), [None, None]);
}
