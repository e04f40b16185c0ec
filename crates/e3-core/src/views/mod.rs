//! Typed views over the ref store: what packages, workspaces, datasets, executions and runs look like as records.
//!
//! Written once, for every storage. A record is JSON under a name; each file says which names are its own.

pub mod datasets;
pub mod executions;
pub(crate) mod followed;
pub mod history;
pub mod operations;
pub mod packages;
pub(crate) mod pieces;
pub mod runs;
pub mod status;
pub mod workspaces;

use std::{cell::RefCell, mem};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    datasets::{DatasetError, DatasetRef, Derivation, Origin},
    executions::{ExecutionRecord, ResultRecord},
    followed::Looks,
    history::{HistoryEntry, HistoryRecord},
    operations::{Operation, OperationKind, PackageChange, RootChange, UndoError},
    packages::PackageError,
    runs::{EventCursor, RunOptions, RunRecord},
    status::TaskStatus,
    workspaces::{DeployReport, Deployment, Following, WorkspaceError, WorkspaceLease, WorkspaceRecord},
};
use crate::{RefError, RefName, RefStore};

/// How long most records are at most, in bytes.
const USUAL: usize = 1024;

pub(crate) fn encode(record: &impl Serialize) -> Bytes {
    thread_local! {
        // Room in which each record is put together.
        static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    TEXT.with_borrow_mut(|text| {
        text.clear();
        serde_json::to_writer(&mut *text, record).expect("records are plain data with text keys");
        // Copied out at its own size, because some storages keep it for long; a large one is cut to its size where it is.
        if text.len() > USUAL {
            mem::take(text).into_boxed_slice().into()
        } else {
            Bytes::copy_from_slice(text)
        }
    })
}

fn decode<T: DeserializeOwned>(name: &RefName, value: &[u8]) -> Result<T, RefError> {
    serde_json::from_slice(value)
        .map_err(|error| RefError::Corrupt { name: name.clone(), message: error.to_string() })
}

pub(crate) async fn read<T: DeserializeOwned>(
    refs: &dyn RefStore,
    name: &RefName,
) -> Result<Option<T>, RefError> {
    let value = refs.read(std::slice::from_ref(name)).await?.pop().flatten();
    value.map(|value| decode(name, &value)).transpose()
}
