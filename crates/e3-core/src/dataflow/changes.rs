//! `Changes`: what is done to a workspace while a run goes on.
//!
//! While nothing changes this costs nothing but a wait; a change costs what it changes.

use std::{collections::BTreeMap, sync::Arc};

use e3_types::{DatasetPath, ObjectRef, WorkspaceName};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{RefError, StorageBackend, Unavailable, operations};

/// Follows the operations of a workspace.
pub(super) struct Changes {
    workspace: WorkspaceName,
    /// The change counter up to which operations have been read, and the last of these.
    counter: u64,
    operation: u64,
    news: mpsc::Receiver<Result<u64, RefError>>,
    /// The one task that waits for the counter; it ends with this value.
    _follower: JoinSet<()>,
}

impl Changes {
    /// Follows the workspace from the operation number `operation` on; `counter` was read before it.
    pub(super) fn follow(
        storage: &Arc<dyn StorageBackend>,
        workspace: &WorkspaceName,
        counter: u64,
        operation: u64,
    ) -> Self {
        let (tell, news) = mpsc::channel(1);
        let mut follower = JoinSet::new();
        let (storage, name) = (Arc::clone(storage), workspace.clone());
        follower.spawn(async move {
            let mut seen = counter;
            loop {
                let now = storage.refs().changed(&name, seen).await;
                let next = now.as_ref().ok().copied();
                let heard = tell.send(now).await.is_ok();
                match next {
                    Some(next) if heard => seen = next,
                    _ => return,
                }
            }
        });
        Self { workspace: workspace.clone(), counter, operation, news, _follower: follower }
    }

    /// The last operation that was taken.
    pub(super) fn operation(&self) -> u64 {
        self.operation
    }

    /// The change counter up to which everything has been taken in.
    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    /// Returns when something has changed.
    pub(super) async fn wait(&mut self) -> Result<(), RefError> {
        match self.news.recv().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error),
            None => Err(Unavailable::new("following the workspace", "its follower has stopped").into()),
        }
    }

    /// The inputs that were changed since the last time, with what they hold now.
    pub(super) async fn take(
        &mut self,
        storage: &dyn StorageBackend,
    ) -> Result<BTreeMap<DatasetPath, Option<ObjectRef>>, RefError> {
        let counter = storage.refs().change_counter(&self.workspace).await?;
        let mut changed = BTreeMap::new();
        if counter == self.counter {
            return Ok(changed);
        }
        for operation in operations::since(storage, &self.workspace, self.operation).await? {
            self.operation = operation.number;
            for change in operation.changes {
                changed.insert(change.path, change.after.map(|value| value.object));
            }
        }
        self.counter = counter;
        Ok(changed)
    }
}
