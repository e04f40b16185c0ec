//! What identity costs: hashing, canonical JSON, folders.
//!
//! `cargo bench -p e3-types`

#![expect(clippy::unwrap_used, reason = "a benchmark has nobody to report errors to")]

use divan::{Bencher, black_box, counter::BytesCount};
use e3_types::{Dir, DirEntry, FileEntry, Hash, Json, ObjectRef};

fn main() {
    divan::main();
}

/// Sizes in bytes: a record, a small file, a piece of a large one.
const SIZES: [usize; 3] = [256, 16 << 10, 1 << 20];

#[divan::bench(args = SIZES)]
fn hash(bencher: Bencher<'_, '_>, size: usize) {
    let bytes = vec![7; size];
    bencher.counter(BytesCount::new(size)).bench_local(|| Hash::of(black_box(&bytes)));
}

fn document(members: usize) -> String {
    let member =
        |number| format!("\"key {number}\":{{\"n\":{number}.5,\"text\":\"a\\u00e4\\n\",\"list\":[1,2,3]}}");
    format!("{{{}}}", (0..members).map(member).collect::<Vec<_>>().join(","))
}

#[divan::bench(args = [1, 100, 10_000])]
fn canonical_json(bencher: Bencher<'_, '_>, members: usize) {
    let text = document(members);
    let counted = bencher.counter(BytesCount::of_str(&text));
    counted.bench_local(|| Json::parse(black_box(text.as_bytes())).unwrap().to_canonical());
}

fn folder(entries: usize) -> Dir {
    let entry = |number: usize| {
        let object = ObjectRef::of(&number.to_le_bytes());
        (format!("file {number:06}"), DirEntry::File(FileEntry { object, executable: false }))
    };
    Dir { entries: (0..entries).map(entry).collect() }
}

#[divan::bench(args = [10, 1000, 100_000])]
fn encode_folder(bencher: Bencher<'_, '_>, entries: usize) {
    let dir = folder(entries);
    bencher.bench_local(|| black_box(&dir).encode());
}

#[divan::bench(args = [10, 1000, 100_000])]
fn decode_folder(bencher: Bencher<'_, '_>, entries: usize) {
    let bytes = folder(entries).encode();
    bencher.bench_local(|| Dir::decode(black_box(&bytes)).unwrap());
}
