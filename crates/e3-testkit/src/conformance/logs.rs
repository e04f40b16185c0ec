//! Checks of `LogStore`.

use e3_core::LogStream;
use e3_types::ExecutionId;

use super::Fixture;

fn execution(number: u8) -> ExecutionId {
    ExecutionId::from_parts(1_700_000_000_000, [number; 10])
}

/// Bytes come back in the order in which they were appended, each stream for itself, through any handle.
pub async fn appended_bytes_are_read_in_order(fixture: &Fixture) {
    let (logs, other) = (fixture.storage.logs(), fixture.other.logs());
    let id = execution(1);
    assert_eq!(logs.size(id, LogStream::Stdout).await.unwrap(), 0);
    assert!(logs.read(id, LogStream::Stdout, 0..9).await.unwrap().is_empty(), "a silent log is empty");
    for (stream, piece) in [
        (LogStream::Stdout, &b"one\n"[..]),
        (LogStream::Stderr, b"warning \xff\n"),
        (LogStream::Stdout, b"two\n"),
    ] {
        logs.append(id, stream, piece).await.unwrap();
    }
    assert_eq!(other.read(id, LogStream::Stdout, 0..u64::MAX).await.unwrap(), "one\ntwo\n");
    assert_eq!(other.read(id, LogStream::Stdout, 2..6).await.unwrap(), "e\ntw");
    assert_eq!(other.read(id, LogStream::Stderr, 0..u64::MAX).await.unwrap(), &b"warning \xff\n"[..]);
    assert_eq!(other.size(id, LogStream::Stdout).await.unwrap(), 8);
    logs.append(id, LogStream::Stdout, b"three\n").await.unwrap();
    assert_eq!(
        other.read(id, LogStream::Stdout, 8..u64::MAX).await.unwrap(),
        "three\n",
        "following is reading on"
    );
}

/// Deleted logs are empty; others stay.
pub async fn logs_are_deleted(fixture: &Fixture) {
    let logs = fixture.storage.logs();
    for number in [1, 2] {
        logs.append(execution(number), LogStream::Stdout, b"x").await.unwrap();
        logs.append(execution(number), LogStream::Stderr, b"y").await.unwrap();
    }
    logs.delete_many(&[execution(1), execution(3)]).await.unwrap();
    assert_eq!(logs.size(execution(1), LogStream::Stdout).await.unwrap(), 0);
    assert_eq!(logs.size(execution(1), LogStream::Stderr).await.unwrap(), 0);
    assert_eq!(logs.size(execution(2), LogStream::Stdout).await.unwrap(), 1);
}
