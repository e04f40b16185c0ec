//! Archives: the same bytes for the same package, and nothing is taken from a bad one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
};

use e3_core::{
    MemoryStorage, ObjectStoreExt, StorageBackend, TreeBuilder,
    archive::{self, ArchiveError},
    packages,
};
use e3_types::{
    CommandLine, FileEntry, Hash, Kind, ObjectRef, Package, PackageTask, Slot, TaskInput, TaskObject,
    TaskPolicy, to_canonical,
};
use futures::TryStreamExt;
use proptest::prelude::*;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A storage with a package that has values of every kind.
async fn stored() -> (MemoryStorage, ObjectRef, Package) {
    let storage = MemoryStorage::default();
    let put = async |text: &str| storage.objects().put_bytes(text.to_owned()).await.unwrap();
    let mut tree = TreeBuilder::new();
    let object = put("two").await;
    tree.add_file("deep/two".as_ref(), FileEntry { object, executable: true }).unwrap();
    tree.add_file("empty file".as_ref(), FileEntry { object: put("").await, executable: false }).unwrap();
    tree.add_dir("empty folder".as_ref()).unwrap();
    let tree = tree.finish();
    for dir in tree.dirs {
        storage.objects().put_bytes(dir).await.unwrap();
    }
    let task = TaskObject {
        command: CommandLine::Shell("cat {a} > {output}".to_owned()),
        each: None,
        env: BTreeMap::new(),
        inputs: vec![TaskInput { name: Some("a".parse().unwrap()), kind: Kind::File, writable: false }],
        output: Kind::File,
    };
    let slot = |kind, default| Slot { kind, default };
    let large = "large ".repeat(200_000);
    let datasets = [
        ("a", slot(Kind::File, Some(Box::new(put(&large).await)))),
        ("d", slot(Kind::Dir, Some(Box::new(tree.root)))),
        ("j", slot(Kind::Json, Some(Box::new(put("{}").await)))),
        ("unassigned", slot(Kind::File, None)),
        ("t", slot(Kind::File, None)),
    ];
    let wired = PackageTask {
        task: storage.objects().put_bytes(task.encode()).await.unwrap().hash,
        inputs: vec!["a".parse().unwrap()],
        output: "t".parse().unwrap(),
        each: None,
        policy: TaskPolicy::usual(),
    };
    let package = Package {
        name: "p".parse().unwrap(),
        version: "1".parse().unwrap(),
        datasets: datasets.into_iter().map(|(path, slot)| (path.parse().unwrap(), slot)).collect(),
        tasks: [("t".parse().unwrap(), wired)].into(),
    };
    let object = packages::store(&storage, &package).await.unwrap();
    (storage, object, package)
}

async fn export(storage: &MemoryStorage, object: ObjectRef) -> Vec<u8> {
    let mut archive = Cursor::new(Vec::new());
    archive::export(storage, object, &mut archive).await.unwrap();
    archive.into_inner()
}

async fn import(bytes: &[u8]) -> (MemoryStorage, Result<(Package, ObjectRef), ArchiveError>) {
    let storage = MemoryStorage::default();
    let imported = archive::import(&storage, &mut Cursor::new(bytes)).await;
    (storage, imported)
}

async fn objects(storage: &MemoryStorage) -> Vec<ObjectRef> {
    let mut all: Vec<ObjectRef> = storage.objects().list().await.unwrap().try_collect().await.unwrap();
    all.sort_by_key(|object| object.hash);
    all
}

#[tokio::test]
async fn a_package_comes_back_whole_and_makes_the_same_bytes_again() {
    let (storage, object, package) = stored().await;
    let archive = export(&storage, object).await;
    let (copy, imported) = import(&archive).await;
    assert_eq!(imported.unwrap(), (package, object));
    assert_eq!(objects(&copy).await, objects(&storage).await);
    assert_eq!(export(&copy, object).await, archive);
    assert_eq!(packages::list(&copy).await.unwrap().len(), 1);
}

/// An entry of an archive: its name and its bytes.
type Entry = (String, Vec<u8>);

/// An archive as somebody else could write it.
fn forge(entries: &[Entry]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(name.clone(), stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The entries of an honest archive, to be made dishonest.
async fn honest() -> Vec<Entry> {
    let (storage, object, _) = stored().await;
    let bytes = export(&storage, object).await;
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..zip.len())
        .map(|at| {
            let mut entry = zip.by_index(at).unwrap();
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

#[tokio::test]
async fn every_dishonest_archive_is_refused_and_leaves_nothing() {
    let honest = honest().await;
    let (_, imported) = import(&forge(&honest)).await;
    imported.unwrap();

    let change = |at: usize, with: &dyn Fn(&mut Entry)| {
        let mut entries = honest.clone();
        with(&mut entries[at]);
        entries
    };
    let last = honest.len() - 1;
    let mut cases: Vec<(&str, Vec<Entry>)> = vec![
        ("altered bytes", change(last, &|entry| entry.1[0] ^= 1)),
        ("more bytes than announced", change(last, &|entry| entry.1.push(0))),
        ("an absolute path", change(last, &|entry| entry.0.insert(0, '/'))),
        ("a parent path", change(last, &|entry| entry.0.insert_str(0, "../"))),
        ("a manifest that is not canonical", change(0, &|entry| entry.1.push(b'\n'))),
        ("no manifest", honest[1..].to_vec()),
        ("a missing object", honest[..last].to_vec()),
        ("nothing", Vec::new()),
    ];
    let mut more = honest.clone();
    more.push((format!("objects/{}", Hash::of(b"more")), b"more".to_vec()));
    cases.push(("an object that was not announced", more));
    let mut swapped = honest.clone();
    swapped.swap(1, 2);
    cases.push(("objects in another order", swapped));
    let edited = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut entries = honest.clone();
        let mut manifest: serde_json::Value = serde_json::from_slice(&entries[0].1).unwrap();
        edit(&mut manifest);
        entries[0].1 = to_canonical(&manifest).unwrap();
        entries
    };
    cases.push(("a newer format", edited(&|manifest| manifest["format"] = 99.into())));
    cases.push(("another name", edited(&|manifest| manifest["name"] = "q".into())));
    cases.push(("a huge size", edited(&|manifest| manifest["dirs"][0]["size"] = (1_u64 << 50).into())));
    let mut fewer = edited(&|manifest| drop(manifest["files"].as_array_mut().unwrap().pop()));
    fewer.pop();
    cases.push(("an object less than the package needs", fewer));

    for (what, entries) in cases {
        let (storage, imported) = import(&forge(&entries)).await;
        let error = imported.expect_err(what);
        assert!(
            matches!(error, ArchiveError::Refused(_) | ArchiveError::Newer { .. } | ArchiveError::Package(_)),
            "{what}: {error}"
        );
        assert!(objects(&storage).await.is_empty(), "{what}");
        assert!(packages::list(&storage).await.unwrap().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn duplicate_names_are_refused() {
    let honest = honest().await;
    let bytes = forge(&honest);
    // The library does not write a name twice, so the second entry is renamed afterwards, in both places.
    let mut entries = honest.clone();
    let twin = format!("objects/{}", Hash::of(b"twin"));
    let (name, body) = entries.last().unwrap().clone();
    entries.push((twin.clone(), body));
    let mut forged = forge(&entries);
    let mut at = 0;
    while let Some(found) = forged[at..].windows(twin.len()).position(|window| window == twin.as_bytes()) {
        forged[at + found..at + found + twin.len()].copy_from_slice(name.as_bytes());
        at += found;
    }
    assert_ne!(forged, bytes);
    let (_, imported) = import(&forged).await;
    assert!(matches!(imported, Err(ArchiveError::Refused(message)) if message.contains("was not announced")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_makes_the_import_panic_or_leave_something(flips in prop::collection::vec((any::<usize>(), 0..8_u8), 1..4), cut in any::<Option<usize>>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut bytes = forge(&honest().await);
            for (at, bit) in flips {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            if let Some(cut) = cut {
                let cut = cut % bytes.len();
                bytes.truncate(cut);
            }
            let (storage, imported) = import(&bytes).await;
            if imported.is_err() {
                assert!(objects(&storage).await.is_empty());
            }
        });
    }
}

#[tokio::test]
async fn a_package_whose_kinds_do_not_fit_is_refused() {
    let (storage, _, package) = stored().await;
    e3_core::packages::check(&storage, &package).await.unwrap();
    let refused = async |change: fn(&mut Package)| {
        let mut changed = package.clone();
        change(&mut changed);
        e3_core::packages::check(&storage, &changed).await.unwrap_err().to_string()
    };
    let kind = refused(|package| {
        for slot in package.datasets.values_mut() {
            slot.kind = if slot.kind == Kind::Json { Kind::File } else { Kind::Json };
        }
    });
    assert!(kind.await.contains("to be of kind"));
    let inputs = refused(|package| package.tasks.values_mut().for_each(|task| task.inputs.clear()));
    assert!(inputs.await.contains("inputs, but 0 datasets are wired to it"));
    let each = refused(|package| package.tasks.values_mut().for_each(|task| task.each = Some(0)));
    assert!(each.await.contains("it is not wired to the folder whose entries it runs for"));
    let none = refused(|package| package.tasks.values_mut().for_each(|task| task.each = Some(99)));
    assert!(none.await.contains("runs once per entry of its input number 99"));
}
