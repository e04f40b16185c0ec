//! `LocalTaskRunner`: `task_execute` as a `TaskRunner`.

use std::sync::Arc;

use async_trait::async_trait;
use e3_core::{Clock, StorageBackend, TaskExecuteOptions, TaskResult, TaskRunner};
use e3_types::Hash;

use crate::{Workshop, task_execute};

/// Runs tasks as processes of this machine.
pub struct LocalTaskRunner {
    clock: Arc<dyn Clock>,
    workshop: Workshop,
}

impl LocalTaskRunner {
    /// A runner whose tasks run as `workshop` says.
    pub fn new(clock: Arc<dyn Clock>, workshop: Workshop) -> Self {
        Self { clock, workshop }
    }
}

#[async_trait]
impl TaskRunner for LocalTaskRunner {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        task_execute(storage, &*self.clock, &self.workshop, task, inputs, &options).await
    }
}
