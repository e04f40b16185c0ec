//! What the local stores cost: objects as files, references in a database.
//!
//! `cargo bench -p e3-store`; `TMPDIR` says on which file system.

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to report errors to")]

use std::cell::Cell;

use bytes::Bytes;
use divan::{Bencher, counter::ItemsCount};
use e3_core::{
    Access, ObjectStoreExt, RefChange, RefName, Scan, Source, StageItem, StorageBackend, SystemClock,
};
use e3_store::LocalStorage;
use e3_types::Hash;
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// How many at once: what a task has, what a small graph has.
const MANY: [usize; 3] = [1, 10, 1000];

struct Bench {
    folder: TempDir,
    storage: LocalStorage,
    runtime: Runtime,
    drawn: Cell<u64>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::create(&folder.path().join("repository"), &SystemClock).unwrap();
        Self { folder, storage, runtime: Runtime::new().unwrap(), drawn: Cell::new(0) }
    }

    /// A number that has not been there.
    fn draw(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get()
    }

    fn small_objects(&self, count: usize) -> Vec<Source> {
        (0..count).map(|_| Source::Bytes(Bytes::from(self.draw().to_string()))).collect()
    }

    fn hashes(&self, count: usize) -> Vec<Hash> {
        let put = self.storage.objects().put_many(self.small_objects(count));
        self.runtime.block_on(put).unwrap().into_iter().map(|object| object.hash).collect()
    }
}

#[divan::bench(args = MANY)]
fn put_small_objects(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new();
    bencher.counter(ItemsCount::new(count)).with_inputs(|| bench.small_objects(count)).bench_local_values(
        |sources| bench.runtime.block_on(bench.storage.objects().put_many(sources)).unwrap(),
    );
}

#[divan::bench(args = MANY)]
fn stat_objects(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new();
    let hashes = bench.hashes(count);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| bench.runtime.block_on(bench.storage.objects().stat_many(&hashes)).unwrap());
}

#[divan::bench(args = MANY)]
fn stage_objects(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new();
    let hashes = bench.hashes(count);
    let items = || {
        let folder = bench.folder.path().join(bench.draw().to_string());
        std::fs::create_dir(&folder).unwrap();
        let item = |hash: &Hash| StageItem {
            hash: *hash,
            size: None,
            to: folder.join(hash.to_string()),
            access: Access::ReadOnly,
            executable: false,
            again: false,
        };
        hashes.iter().map(item).collect::<Vec<_>>()
    };
    bencher.counter(ItemsCount::new(count)).with_inputs(items).bench_local_values(|items| {
        bench.runtime.block_on(bench.storage.objects().stage_many(&items)).unwrap()
    });
}

#[divan::bench]
fn get_a_small_object(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    let hash = bench.hashes(1)[0];
    bencher.bench_local(|| bench.runtime.block_on(bench.storage.objects().get_bytes(&hash, 100)).unwrap());
}

fn names(count: usize) -> Vec<RefName> {
    (0..count).map(|number| RefName::new(&[&"bench", &Hash::of(&number.to_le_bytes())])).collect()
}

fn changes(bench: &Bench, names: &[RefName]) -> Vec<RefChange> {
    let value = Bytes::from(format!("{:0200}", bench.draw()));
    names.iter().map(|name| RefChange::set(name.clone(), value.clone())).collect()
}

#[divan::bench(args = MANY)]
fn write_refs(bencher: Bencher<'_, '_>, count: usize) {
    let (bench, names) = (Bench::new(), names(count));
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| changes(&bench, &names))
        .bench_local_values(|changes| bench.runtime.block_on(bench.storage.refs().write(changes)).unwrap());
}

#[divan::bench(args = MANY)]
fn read_refs(bencher: Bencher<'_, '_>, count: usize) {
    let (bench, names) = (Bench::new(), names(count));
    bench.runtime.block_on(bench.storage.refs().write(changes(&bench, &names))).unwrap();
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| bench.runtime.block_on(bench.storage.refs().read(&names)).unwrap());
}

#[divan::bench(args = MANY)]
fn scan_refs(bencher: Bencher<'_, '_>, count: usize) {
    let (bench, names) = (Bench::new(), names(count));
    bench.runtime.block_on(bench.storage.refs().write(changes(&bench, &names))).unwrap();
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| bench.runtime.block_on(bench.storage.refs().scan(Scan::under(&[&"bench"]))).unwrap());
}
