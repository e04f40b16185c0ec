//! Checks of `RefStore`.

use bytes::Bytes;
use e3_core::{Precondition, RefChange, RefError, RefName, RefStore, Scan};

use super::Fixture;

fn name(text: &str) -> RefName {
    let segments: Vec<&str> = text.split('/').collect();
    let segments: Vec<&(dyn std::fmt::Display + Sync)> =
        segments.iter().map(|segment| segment as _).collect();
    RefName::new(&segments)
}

async fn value(refs: &dyn RefStore, at: &str) -> Option<Bytes> {
    refs.read(&[name(at)]).await.unwrap().remove(0)
}

/// Values are read as they were written, and gone when they were removed.
pub async fn write_read_remove(fixture: &Fixture) {
    let refs = fixture.storage.refs();
    assert_eq!(value(refs, "a/b").await, None);
    refs.write(vec![RefChange::set(name("a/b"), "1"), RefChange::set(name("a/c"), vec![0, 255])])
        .await
        .unwrap();
    assert_eq!(
        refs.read(&[name("a/c"), name("a/x"), name("a/b")]).await.unwrap(),
        [Some(Bytes::from_static(&[0, 255])), None, Some(Bytes::from_static(b"1"))]
    );
    refs.write(vec![RefChange::set(name("a/b"), "2"), RefChange::remove(name("a/c"))]).await.unwrap();
    assert_eq!(value(refs, "a/b").await.unwrap(), "2");
    assert_eq!(value(refs, "a/c").await, None);
    refs.write(vec![RefChange::remove(name("a/never"))]).await.unwrap();
}

/// A value of many bytes is kept as one of few is, and one takes the place of the other.
pub async fn values_may_be_large(fixture: &Fixture) {
    let refs = fixture.storage.refs();
    let large = |seed: usize, length: usize| -> Bytes {
        (0..length).map(|place| u8::try_from((place * 31 + place / 4096 + seed) % 251).unwrap()).collect()
    };
    let (one, other) = (large(1, (3 << 20) + 7), large(2, 5 << 20));
    for text in [&b"small"[..], &one, &other, &one[..1 << 20], b"", &one] {
        let text = Bytes::copy_from_slice(text);
        let changes = [("l/a", b"before".to_vec()), ("l/b", text.to_vec()), ("l/c", b"behind".to_vec())];
        refs.write(changes.map(|(at, value)| RefChange::set(name(at), value)).into()).await.unwrap();
        let found = refs.scan(Scan::under(&[&"l"])).await.unwrap();
        let values: Vec<Bytes> = found.into_iter().map(|(_, value)| value).collect();
        assert!(values == [Bytes::from_static(b"before"), text.clone(), Bytes::from_static(b"behind")]);
        let swap = RefChange::set(name("l/b"), other.clone())
            .when(Precondition::Value(text.slice(..text.len() / 2)));
        let swapped = refs.write(vec![swap]).await;
        assert_eq!(swapped.is_ok(), text.is_empty());
    }
}

/// One condition that does not hold keeps every change of the write from being made.
pub async fn preconditions_guard_all_changes_together(fixture: &Fixture) {
    let refs = fixture.storage.refs();
    let absent = |at: &str| RefChange::set(name(at), "new").when(Precondition::Absent);
    refs.write(vec![absent("a/1")]).await.unwrap();
    let refused = refs.write(vec![absent("a/2"), absent("a/1")]).await;
    assert!(matches!(refused, Err(RefError::Conflict(at)) if at == name("a/1")));
    assert_eq!(value(refs, "a/2").await, None);
    let swap = |old: &'static str, new: &'static str| {
        vec![RefChange::set(name("a/1"), new).when(Precondition::Value(Bytes::from_static(old.as_bytes())))]
    };
    refs.write(swap("new", "newer")).await.unwrap();
    assert!(matches!(refs.write(swap("new", "newest")).await, Err(RefError::Conflict(_))));
    assert_eq!(value(refs, "a/1").await.unwrap(), "newer");
    let gone = RefChange::remove(name("a/3")).when(Precondition::Value(Bytes::from_static(b"x")));
    assert!(matches!(refs.write(vec![gone]).await, Err(RefError::Conflict(_))));
}

/// A scan gives the names with a prefix, sorted either way, in pages.
pub async fn scans_are_sorted_and_paged(fixture: &Fixture) {
    let refs = fixture.storage.refs();
    let names = ["s/a", "s/b", "s/b0", "s/c", "s-a/x", "s0", "r/z", "t/a"];
    refs.write(names.iter().map(|at| RefChange::set(name(at), at.as_bytes().to_vec())).collect())
        .await
        .unwrap();
    let scan = async |scan: Scan| -> Vec<String> {
        let found = refs.scan(scan).await.unwrap();
        assert!(found.iter().all(|(name, value)| name.as_str().as_bytes() == value));
        found.into_iter().map(|(name, _)| name.as_str().to_owned()).collect()
    };
    let all = || Scan::under(&[&"s"]);
    assert_eq!(scan(all()).await, ["s/a", "s/b", "s/b0", "s/c"]);
    assert_eq!(scan(all().last_first(3)).await, ["s/c", "s/b0", "s/b"]);
    assert_eq!(scan(Scan { after: Some(name("s/b")), ..all() }).await, ["s/b0", "s/c"]);
    assert_eq!(scan(Scan { after: Some(name("s/b")), limit: 1, ..all() }).await, ["s/b0"]);
    assert_eq!(scan(Scan { after: Some(name("s/b0")), ..all().last_first(9) }).await, ["s/b", "s/a"]);
    assert!(scan(Scan { after: Some(name("s/a")), ..all().last_first(9) }).await.is_empty());
    // From beyond either end.
    assert_eq!(scan(Scan { after: Some(name("r/z")), ..all() }).await.len(), 4);
    assert_eq!(scan(Scan { after: Some(name("t/a")), ..all().last_first(9) }).await.len(), 4);
    assert!(scan(Scan { after: Some(name("t/a")), ..all() }).await.is_empty());
    assert!(scan(Scan { after: Some(name("r/z")), ..all().last_first(9) }).await.is_empty());
    assert!(scan(Scan::under(&[&"nothing"])).await.is_empty());
}

/// The counter of a workspace grows with writes of its names, once or more for each, and with no others.
pub async fn counters_count_their_workspace_only(fixture: &Fixture) {
    let refs = fixture.storage.refs();
    let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
    let counts =
        async || (refs.change_counter(&one).await.unwrap(), refs.change_counter(&two).await.unwrap());
    let start = counts().await;
    refs.write(vec![RefChange::set(name("workspaces/one/data/x"), "1")]).await.unwrap();
    let after_one = counts().await;
    assert!(after_one.0 > start.0);
    assert_eq!(after_one.1, start.1);
    refs.write(vec![RefChange::set(name("executions/x"), "1"), RefChange::set(name("runs/one/x"), "1")])
        .await
        .unwrap();
    assert_eq!(counts().await, after_one);
    refs.write(vec![RefChange::remove(name("workspaces/two/deployed"))]).await.unwrap();
    assert!(counts().await.1 > after_one.1);
    let refused = RefChange::set(name("workspaces/one/data/x"), "2").when(Precondition::Absent);
    let before = counts().await;
    assert!(refs.write(vec![refused]).await.is_err());
    assert_eq!(counts().await, before, "what was not written is not counted");
}

/// Of several that swap the same value at once, exactly one succeeds each time: no update is lost.
pub async fn of_concurrent_swaps_one_wins(fixture: &Fixture) {
    const WORKERS: u32 = 8;
    const ROUNDS: u32 = 20;
    let at = name("counter/x");
    fixture.storage.refs().write(vec![RefChange::set(at.clone(), "0")]).await.unwrap();
    let add_up = async |number: u32| {
        let refs = if number.is_multiple_of(2) { fixture.storage.refs() } else { fixture.other.refs() };
        for _ in 0..ROUNDS {
            loop {
                let old = refs.read(std::slice::from_ref(&at)).await.unwrap().remove(0).unwrap();
                let count: u32 = std::str::from_utf8(&old).unwrap().parse().unwrap();
                let change =
                    RefChange::set(at.clone(), (count + 1).to_string()).when(Precondition::Value(old));
                match refs.write(vec![change]).await {
                    Ok(()) => break,
                    Err(RefError::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    futures::future::join_all((0..WORKERS).map(add_up)).await;
    let total = fixture.other.refs().read(std::slice::from_ref(&at)).await.unwrap().remove(0).unwrap();
    assert_eq!(total, (WORKERS * ROUNDS).to_string());
}

/// What one handle has been told is written, every other one reads.
pub async fn another_handle_sees_what_was_written(fixture: &Fixture) {
    for round in 0..20_u32 {
        let (writer, reader) = if round.is_multiple_of(2) {
            (&fixture.storage, &fixture.other)
        } else {
            (&fixture.other, &fixture.storage)
        };
        writer.refs().write(vec![RefChange::set(name("seen/x"), round.to_string())]).await.unwrap();
        assert_eq!(value(reader.refs(), "seen/x").await.unwrap(), round.to_string());
    }
}

/// Whoever waits for a change of a workspace is woken by a write of its names through any handle, and by no other.
pub async fn a_change_of_a_workspace_wakes_who_waits_for_it(fixture: &Fixture) {
    let workspace = "one".parse().unwrap();
    let refs = fixture.storage.refs();
    let set = |at: &str| vec![RefChange::set(name(at), "1")];
    refs.write(set("workspaces/one/data/x")).await.unwrap();
    let seen = refs.change_counter(&workspace).await.unwrap();
    assert_eq!(
        refs.changed(&workspace, seen - 1).await.unwrap(),
        seen,
        "what has changed already is told at once"
    );
    for writer in [&fixture.storage, &fixture.other] {
        let seen = refs.change_counter(&workspace).await.unwrap();
        let write = async {
            writer.refs().write(set("workspaces/two/data/x")).await.unwrap();
            writer.refs().write(set("outputs/one/x")).await.unwrap();
            tokio::task::yield_now().await;
            writer.refs().write(set("workspaces/one/data/x")).await.unwrap();
        };
        let (now, ()) = tokio::join!(refs.changed(&workspace, seen), write);
        assert!(now.unwrap() > seen);
    }
}
