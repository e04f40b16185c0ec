//! Checks of `ObjectStore`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use e3_core::{Access, ObjectError, ObjectStore, ObjectStoreExt, Source, StageItem};
use e3_types::{Hash, ObjectRef, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::Fixture;

/// Larger than any buffer or limit for small objects.
fn large() -> Bytes {
    (0..2_000_000_u32).map(|number| u8::try_from(number % 251).expect("a remainder of 251 fits")).collect()
}

/// Every source gives the hash of its bytes, and the same bytes twice are one object.
pub async fn put_is_idempotent(fixture: &Fixture) {
    let store = fixture.storage.objects();
    for bytes in [Bytes::new(), Bytes::from_static(b"small"), large()] {
        let expected = ObjectRef::of(&bytes);
        let file = fixture.folder.path().join("source");
        fs::write(&file, &bytes).unwrap();
        let pieces: Vec<_> = bytes.chunks(7000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let sources = vec![
            Source::Bytes(bytes.clone()),
            Source::Stream(stream::iter(pieces).boxed()),
            Source::Copy(file.clone()),
            Source::Bytes(bytes.clone()),
            Source::Adopt(file),
        ];
        assert_eq!(store.put_many(sources).await.unwrap(), [expected; 5]);
        assert_eq!(store.stat(&expected.hash).await.unwrap(), Some(expected.size));
        assert_eq!(store.get_bytes(&expected.hash, u64::MAX).await.unwrap(), bytes);
    }
}

/// A range gives what of it is there; a whole object is read up to a limit.
pub async fn get_reads_ranges(fixture: &Fixture) {
    let store = fixture.storage.objects();
    let bytes = large();
    let object = store.put_bytes(bytes.clone()).await.unwrap();
    let read = async |range: std::ops::Range<u64>| {
        let pieces: Vec<Bytes> = store.get(&object.hash, range).await.unwrap().try_collect().await.unwrap();
        pieces.concat()
    };
    assert_eq!(read(10..20).await, bytes[10..20]);
    assert_eq!(read(300_000..900_000).await, bytes[300_000..900_000]);
    assert_eq!(read(1_999_990..u64::MAX).await, bytes[1_999_990..]);
    assert!(read(5_000_000..6_000_000).await.is_empty());
    assert!(read(7..7).await.is_empty());
    for too_little in [0, 100, 1_999_999] {
        let error = store.get_bytes(&object.hash, too_little).await.unwrap_err();
        let is_told =
            matches!(error, ObjectError::TooLarge { size: 2_000_000, limit, .. } if limit == too_little);
        assert!(is_told, "{error}");
    }
    assert_eq!(store.get_bytes(&object.hash, 2_000_000).await.unwrap(), bytes);
}

/// What is not there is told as such, by name.
pub async fn missing_objects_are_told(fixture: &Fixture) {
    let store = fixture.storage.objects();
    let missing = ObjectRef::of(b"never put");
    assert_eq!(store.stat(&missing.hash).await.unwrap(), None);
    let got = store.get(&missing.hash, 0..1).await.map(drop);
    assert!(matches!(got, Err(ObjectError::NotFound(hash)) if hash == missing.hash));
    let to = fixture.folder.path().join("staged");
    let item = StageItem {
        hash: missing.hash,
        size: None,
        to: to.clone(),
        access: Access::ReadOnly,
        executable: false,
        again: false,
    };
    assert!(matches!(store.stage_many(&[item]).await, Err(ObjectError::NotFound(_))));
    assert!(!to.exists());
    let source = Source::Copy(fixture.folder.path().join("no such file"));
    assert!(matches!(store.put(source).await, Err(ObjectError::Unavailable(_))));
}

/// `Adopt` takes the file away, `Copy` leaves it; neither lets a later change of a file reach the object.
pub async fn adopt_moves_and_copy_leaves(fixture: &Fixture) {
    let store = fixture.storage.objects();
    let (adopted, copied) = (fixture.folder.path().join("adopted"), fixture.folder.path().join("copied"));
    fs::write(&adopted, "adopted").unwrap();
    fs::write(&copied, "copied").unwrap();
    let kept = fixture.folder.path().join("second name");
    fs::hard_link(&adopted, &kept).unwrap();
    let sources = vec![Source::Adopt(adopted.clone()), Source::Copy(copied.clone())];
    let objects = store.put_many(sources).await.unwrap();
    assert!(!adopted.exists());
    assert_eq!(fs::read(&copied).unwrap(), b"copied");
    fs::write(&copied, "changed").unwrap();
    fs::write(&kept, "changed").unwrap();
    assert_eq!(store.get_bytes(&objects[0].hash, 100).await.unwrap(), "adopted");
    assert_eq!(store.get_bytes(&objects[1].hash, 100).await.unwrap(), "copied");
}

/// Staged files have the bytes, the fixed time, and the mode that fits; private ones can be changed without harm.
pub async fn stage_makes_files_with_their_modes(fixture: &Fixture) {
    let store = fixture.storage.objects();
    for bytes in [Bytes::from_static(b"#!/bin/sh\n"), large()] {
        let object = store.put_bytes(bytes.clone()).await.unwrap();
        let folder = fixture.folder.path().join(format!("staged {}", object.size));
        fs::create_dir(&folder).unwrap();
        let modes = [
            (Access::ReadOnly, false, 0o444),
            (Access::ReadOnly, true, 0o555),
            (Access::Private, false, 0o644),
            (Access::Private, true, 0o755),
        ];
        for round in 0..2 {
            let to = |mode: u32| folder.join(format!("{mode:o} {round}"));
            let items: Vec<_> = modes
                .iter()
                .map(|&(access, executable, mode)| {
                    let size = executable.then_some(object.size);
                    StageItem { hash: object.hash, size, to: to(mode), access, executable, again: false }
                })
                .collect();
            assert_eq!(store.stage_many(&items).await.unwrap(), [object.size; 4]);
            for (access, _, mode) in modes {
                let path = to(mode);
                let metadata = fs::metadata(&path).unwrap();
                assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{}", path.display());
                let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
                assert_eq!((modified.as_secs(), modified.subsec_nanos()), (Source::MODIFIED_SECONDS, 0));
                assert_eq!(fs::read(&path).unwrap(), bytes);
                if access == Access::Private {
                    fs::write(&path, "changed").unwrap();
                }
            }
            let other = StageItem { size: Some(object.size + 1), to: to(0), ..items[0].clone() };
            let refused = store.stage_many(&[other]).await;
            assert!(matches!(refused, Err(ObjectError::Corrupt { hash, .. }) if hash == object.hash));
            assert!(store.stage_many(&items).await.is_err(), "files that are there are not overwritten");
            // Unless that is asked for: then it does not matter what they are.
            let again: Vec<_> = items.iter().map(|item| StageItem { again: true, ..item.clone() }).collect();
            for spoil in 0..3 {
                match spoil {
                    0 => {}
                    1 => again.iter().for_each(|item| fs::remove_file(&item.to).unwrap()),
                    _ => again.iter().for_each(|item| {
                        fs::remove_file(&item.to).unwrap();
                        symlink("nowhere", &item.to).unwrap();
                    }),
                }
                assert_eq!(store.stage_many(&again).await.unwrap(), [object.size; 4]);
                for (_, _, mode) in modes {
                    let metadata = fs::symlink_metadata(to(mode)).unwrap();
                    assert_eq!(metadata.permissions().mode() & 0o7777, mode);
                    assert_eq!(fs::read(to(mode)).unwrap(), bytes);
                }
            }
        }
        assert_eq!(store.get_bytes(&object.hash, u64::MAX).await.unwrap(), bytes);
    }
}

/// All objects are listed; those older than a time can be deleted.
pub async fn list_and_delete(fixture: &Fixture) {
    let store = fixture.storage.objects();
    let mut put = Vec::new();
    for text in ["one", "two", "three"] {
        put.push(store.put_bytes(text).await.unwrap());
    }
    put.sort_by_key(|object| object.hash);
    assert_eq!(listed(store).await, put);
    let hashes: Vec<Hash> = put.iter().map(|object| object.hash).collect();
    let long_ago = Timestamp::from_unix_ms(1);
    assert_eq!(store.delete_many(&hashes, long_ago).await.unwrap(), 0, "they are younger");
    let some_day = Timestamp::from_unix_ms(u64::MAX);
    let stamp = fixture.storage.object_stamp().await.unwrap();
    assert_eq!(fixture.storage.object_stamp().await.unwrap(), stamp, "nothing has happened");
    assert_eq!(store.delete_many(&hashes[..2], some_day).await.unwrap(), 2);
    assert_eq!(store.delete_many(&hashes[..2], some_day).await.unwrap(), 0);
    assert_ne!(fixture.storage.object_stamp().await.unwrap(), stamp);
    assert_eq!(listed(store).await, put[2..]);
    // However soon after the stamp, and the stamp after the object.
    for round in 0..300 {
        let object = store.put_bytes(format!("{round}")).await.unwrap();
        let stamp = fixture.storage.object_stamp().await.unwrap();
        assert_eq!(store.delete_many(&[object.hash], some_day).await.unwrap(), 1);
        assert_ne!(fixture.storage.object_stamp().await.unwrap(), stamp, "in round {round}");
    }
}

/// Many that are put at once are objects like any others, whatever a store does to keep them cheaply.
pub async fn many_at_once(fixture: &Fixture) {
    let store = fixture.storage.objects();
    let bytes = |number: usize| Bytes::from(vec![b'0' + u8::try_from(number % 10).unwrap(); number]);
    let file = |number: usize| fixture.folder.path().join(format!("source {number}"));
    let count = 300;
    let put = async || {
        let mut sources = vec![Source::Bytes(large())];
        for number in 0..count {
            sources.push(if number % 2 == 0 {
                Source::Bytes(bytes(number * 20))
            } else {
                fs::write(file(number), bytes(number * 20)).unwrap();
                Source::Copy(file(number))
            });
        }
        store.put_many(sources).await.unwrap()
    };
    let objects = put().await;
    assert_eq!(objects[0], ObjectRef::of(&large()));
    for (number, object) in objects[1..].iter().enumerate() {
        assert_eq!(*object, ObjectRef::of(&bytes(number * 20)), "{number}");
    }
    assert_eq!(put().await, objects);
    fs::write(file(1), "changed").unwrap();

    // Through another handle, one by one and together.
    let other = fixture.other.objects();
    let hashes: Vec<Hash> = objects.iter().map(|object| object.hash).collect();
    let sizes: Vec<_> = objects.iter().map(|object| Some(object.size)).collect();
    assert_eq!(other.stat_many(&hashes).await.unwrap(), sizes);
    assert_eq!(other.stat(&hashes[2]).await.unwrap(), Some(20));
    assert_eq!(other.get_bytes(&hashes[2], 100).await.unwrap(), bytes(20));
    let read = async |range: std::ops::Range<u64>| {
        let pieces: Vec<Bytes> = other.get(&hashes[2], range).await.unwrap().try_collect().await.unwrap();
        pieces.concat().len()
    };
    assert_eq!((read(5..10).await, read(15..99).await, read(30..40).await, read(3..3).await), (5, 5, 0, 0));
    let (first, last) = (10, 0);
    assert!(read(first..last).await == 0, "a range that ends before it begins is empty");
    let error = other.get_bytes(&hashes[2], 19).await.unwrap_err();
    assert!(matches!(error, ObjectError::TooLarge { size: 20, limit: 19, .. }), "{error}");
    let mut all = objects.clone();
    all.sort_by_key(|object| object.hash);
    all.dedup();
    assert_eq!(listed(other).await, all);

    // As files, one by one and together.
    let stage = async |folder: &str, numbers: &[usize]| {
        let folder = fixture.folder.path().join(folder);
        fs::create_dir(&folder).unwrap();
        let to = |number: usize| folder.join(number.to_string());
        let item = |&number: &usize| {
            let (access, executable) = (Access::ReadOnly, number % 3 == 0);
            StageItem { hash: hashes[number], size: None, to: to(number), access, executable, again: false }
        };
        let items: Vec<_> = numbers.iter().map(item).collect();
        let staged = other.stage_many(&items).await.unwrap();
        for (&number, size) in numbers.iter().zip(staged) {
            let metadata = fs::metadata(to(number)).unwrap();
            assert_eq!((Some(size), metadata.len()), (sizes[number], size));
            let mode = if number % 3 == 0 { 0o555 } else { 0o444 };
            assert_eq!(metadata.permissions().mode() & 0o7777, mode);
            let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
            assert_eq!((modified.as_secs(), modified.subsec_nanos()), (Source::MODIFIED_SECONDS, 0));
            assert_eq!(Hash::of(&fs::read(to(number)).unwrap()), hashes[number]);
        }
    };
    stage("few", &[2, 3]).await;
    let everyone: Vec<usize> = (0..hashes.len()).collect();
    stage("many", &everyone).await;
    assert_eq!(listed(store).await, all, "each is listed once");

    // One that has a file of its own now, one that has none.
    let some_day = Timestamp::from_unix_ms(u64::MAX);
    let lonely = store.put_many((0..100).map(|number| Source::Bytes(bytes(5000 - number))).collect()).await;
    let lonely: Vec<Hash> = lonely.unwrap().iter().map(|object| object.hash).collect();
    assert_eq!(store.delete_many(&lonely, Timestamp::from_unix_ms(1)).await.unwrap(), 0, "they are younger");
    for hash in [hashes[4], lonely[60], lonely[99]] {
        let stamp = fixture.storage.object_stamp().await.unwrap();
        assert_eq!(other.delete_many(&[hash], some_day).await.unwrap(), 1);
        assert_ne!(fixture.storage.object_stamp().await.unwrap(), stamp);
        assert_eq!(store.stat_many(&[hash]).await.unwrap(), [None]);
        assert_eq!(other.delete_many(&[hash], some_day).await.unwrap(), 0);
    }
}

async fn listed(store: &dyn ObjectStore) -> Vec<ObjectRef> {
    let mut all: Vec<ObjectRef> = store.list().await.unwrap().try_collect().await.unwrap();
    all.sort_by_key(|object| object.hash);
    all
}

/// Any number of callers, through several handles, may put the same bytes at once.
pub async fn concurrent_puts_of_one_object(fixture: &Fixture) {
    let bytes = large();
    let puts = (0..16).map(|number| {
        let storage = if number % 2 == 0 { &fixture.storage } else { &fixture.other };
        storage.objects().put_bytes(bytes.clone())
    });
    for put in futures::future::join_all(puts).await {
        assert_eq!(put.unwrap(), ObjectRef::of(&bytes));
    }
    let got = fixture.other.objects().get_bytes(&Hash::of(&bytes), u64::MAX).await.unwrap();
    assert_eq!(got, bytes);
}
