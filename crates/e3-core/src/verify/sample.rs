//! Executing cached work again, to find out whether it comes to the same. Nothing that is found changes what is cached.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::{ExecutionId, ExecutionState, Failure, Hash, Kind, ObjectRef};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    Cancellation, LeaseStore, LogStore, MemoryStorage, ObjectError, ObjectStamp, ObjectStore, RefStore,
    StorageBackend, StorageError, TaskExecuteOptions, TaskRunner,
    executions::{self, ExecutionRecord},
    explain::{DetailChange, folder_details},
    packages,
};

/// What is to be executed again.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// Which share of the results, from 0 to 1; at least one, if there is any.
    pub share: f64,
    /// Which ones: another salt, another choice.
    pub salt: String,
    /// How many at once.
    pub jobs: usize,
    /// How to stop it.
    pub cancellation: Cancellation,
}

/// A result that was executed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The execution that made it.
    pub execution: ExecutionId,
    /// What that was called.
    pub label: String,
    /// What came of it.
    pub verdict: ReplayVerdict,
}

/// What came of a second execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayVerdict {
    /// The same bytes.
    Same,
    /// Others.
    Differs {
        /// The output that is cached.
        cached: ObjectRef,
        /// The output now.
        now: ObjectRef,
        /// The first difference, in words.
        first: String,
    },
    /// No output.
    Failed(Failure),
}

const PAGE: usize = 1000;

/// Executes a share of the cached results again.
pub async fn sample(
    storage: &dyn StorageBackend,
    runner: &dyn TaskRunner,
    options: &SampleOptions,
) -> Result<Vec<Replay>, StorageError> {
    let mut all: Vec<ExecutionId> = Vec::new();
    let mut after = None;
    loop {
        let (page, last) = executions::all_results(storage, after, PAGE).await?;
        all.extend(page.iter().filter(|result| result.outcome.is_ok()).map(|result| result.execution));
        after = last;
        if after.is_none() {
            break;
        }
    }
    // Sorted by something that has nothing to do with what they are.
    all.sort_by_key(|execution| Hash::of(format!("{}{execution}", options.salt).as_bytes()));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a number of results, which is far below 2^52"
    )]
    let count = (all.len() as f64 * options.share.clamp(0.0, 1.0)).ceil() as usize;
    all.truncate(count);
    let replays = stream::iter(all)
        .map(|execution| replay(storage, runner, execution, options))
        .buffer_unordered(options.jobs.max(1))
        .try_filter_map(async |replay| Ok(replay))
        .try_collect::<Vec<_>>();
    let mut replays = replays.await?;
    replays.sort_by(|one, other| (&one.label, one.execution).cmp(&(&other.label, other.execution)));
    Ok(replays)
}

/// Executes one again; none if it cannot be, because something that it was made of is no longer there.
async fn replay(
    storage: &dyn StorageBackend,
    runner: &dyn TaskRunner,
    execution: ExecutionId,
    options: &SampleOptions,
) -> Result<Option<Replay>, StorageError> {
    if options.cancellation.is_requested() {
        return Ok(None);
    }
    let Some(record) = executions::find(storage, execution).await? else { return Ok(None) };
    let ExecutionRecord { state: ExecutionState::Success, outcome: Some(Ok(cached)), .. } = record else {
        return Ok(None);
    };
    let Ok(task) = packages::load_task(storage, record.task).await else { return Ok(None) };
    let there = storage.objects().stat_many(&record.inputs).await?;
    if there.iter().any(Option::is_none)
        || storage.objects().stat_many(&[cached.hash]).await? != [Some(cached.size)]
    {
        return Ok(None);
    }
    let aside = Aside { storage, memory: MemoryStorage::default() };
    let options = TaskExecuteOptions {
        label: record.label.clone(),
        limits: record.limits,
        sandbox: record.sandbox,
        timeout: record.timeout_ms.map(Duration::from_millis),
        cancellation: options.cancellation.clone(),
        ..TaskExecuteOptions::default()
    };
    let result = runner.execute(&aside, record.task, &record.inputs, options).await;
    let verdict = match result.outcome {
        Ok(now) if now == cached => ReplayVerdict::Same,
        Ok(now) => {
            let first = first_difference(storage.objects(), task.output, cached, now).await?;
            ReplayVerdict::Differs { cached, now, first }
        }
        Err(Failure::InputMissing { .. } | Failure::Cancelled) => return Ok(None),
        Err(failure) => ReplayVerdict::Failed(failure),
    };
    Ok(Some(Replay { execution, label: record.label, verdict }))
}

/// The objects of a repository, with records and logs of its own: what is executed here leaves no trace in the history.
struct Aside<'a> {
    storage: &'a dyn StorageBackend,
    memory: MemoryStorage,
}

#[async_trait]
impl StorageBackend for Aside<'_> {
    fn objects(&self) -> &dyn ObjectStore {
        self.storage.objects()
    }

    fn refs(&self) -> &dyn RefStore {
        self.memory.refs()
    }

    fn logs(&self) -> &dyn LogStore {
        self.memory.logs()
    }

    fn leases(&self) -> &dyn LeaseStore {
        self.memory.leases()
    }

    async fn object_stamp(&self) -> Result<ObjectStamp, StorageError> {
        self.storage.object_stamp().await
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.storage.sync().await
    }
}

/// The first place where two outputs differ.
async fn first_difference(
    objects: &dyn ObjectStore,
    kind: Kind,
    before: ObjectRef,
    after: ObjectRef,
) -> Result<String, ObjectError> {
    if kind != Kind::Dir {
        return first_byte(objects, before.hash, after.hash).await;
    }
    let details = folder_details(objects, before.hash, after.hash).await?;
    let Some(first) = details.first() else { return Ok("in the order of their entries".to_owned()) };
    Ok(match &first.change {
        DetailChange::Added => format!("entry `{}` is new", first.path),
        DetailChange::Removed => format!("entry `{}` is gone", first.path),
        DetailChange::Changed { before, after } => match (before.parse(), after.parse()) {
            (Ok(before), Ok(after)) => {
                format!("entry `{}`: {}", first.path, first_byte(objects, before, after).await?)
            }
            _ => format!("entry `{}`: {before} -> {after}", first.path),
        },
    })
}

async fn first_byte(objects: &dyn ObjectStore, before: Hash, after: Hash) -> Result<String, ObjectError> {
    let mut streams = [objects.get(&before, 0..u64::MAX).await?, objects.get(&after, 0..u64::MAX).await?];
    let mut pieces = [Bytes::new(), Bytes::new()];
    let mut at = 0_u64;
    loop {
        for (piece, stream) in pieces.iter_mut().zip(&mut streams) {
            while piece.is_empty()
                && let Some(next) = stream.try_next().await?
            {
                *piece = next;
            }
        }
        let [one, other] = &mut pieces;
        let length = one.len().min(other.len());
        if let Some(place) = one.iter().zip(other.iter()).position(|(one, other)| one != other) {
            return Ok(format!("byte {} is the first that differs", at + place as u64));
        }
        if length == 0 {
            return Ok(format!("one ends after {at} bytes, where the other goes on"));
        }
        at += length as u64;
        drop((one.split_to(length), other.split_to(length)));
    }
}
