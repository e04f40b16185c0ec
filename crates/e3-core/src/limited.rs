//! `LimitedRunner`: a runner that is asked for only so much at once.

use std::{num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use e3_types::{Failure, Hash};
use tokio::sync::Semaphore;

use crate::{StorageBackend, TaskExecuteOptions, TaskResult, TaskRunner};

/// Hands at most so many executions at once to another runner; the others wait, in order.
///
/// The limits of a run are about the machine that it runs on; this one is about what the runner stands for, such as a
/// queue of a cluster, whoever asks for it.
pub struct LimitedRunner {
    runner: Arc<dyn TaskRunner>,
    free: Semaphore,
}

impl LimitedRunner {
    /// At most `limit` executions at once.
    pub fn new(runner: Arc<dyn TaskRunner>, limit: NonZeroUsize) -> Self {
        Self { runner, free: Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS)) }
    }
}

#[async_trait]
impl TaskRunner for LimitedRunner {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        // What is not to be executed yet takes nothing from what is.
        if !options.time_comes().await {
            return TaskResult::without_execution(Failure::Cancelled);
        }
        let permit = tokio::select! {
            permit = self.free.acquire() => permit.expect("the semaphore is never closed"),
            () = options.cancellation.requested() => {
                return TaskResult::without_execution(Failure::Cancelled);
            }
        };
        let result = self.runner.execute(storage, task, inputs, options).await;
        drop(permit);
        result
    }
}
