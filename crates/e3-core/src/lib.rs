//! The engine of e3, coupled to nothing: no file system, process, network, environment or terminal of its own.
//!
//! What it needs from outside comes in through the seams (module `seams`), each a small trait with its contract.
//! The one place that touches files is `MemoryObjects`, whose contract has two verbs that take a path.

pub mod archive;
mod clock;
mod dataflow;
mod execution;
mod explain;
mod limited;
mod memory;
mod mock;
pub mod parallel;
mod seams;
mod tree;
mod turn;
pub mod verify;
mod views;

pub use clock::{Clock, SystemClock, TestClock};
pub use dataflow::{
    Action, Dataflow, DataflowError, DataflowOptions, DataflowPolicy, Force, Graph, GraphError, ItemSpec,
    NamePattern, NamePatternError, OnFailure, RunReport, Standing, TaskFailure, TaskIndex, Unit, UnitState,
    dataflow_execute, dataflow_execute_held, kept_if_settled,
};
pub use execution::{ExecutionContext, ExecutionKey, Lookup, Outcome, Usage, lookup_many, perform};
pub use explain::{
    Decision, Detail, DetailChange, Difference, Earlier, EntriesPlan, KeyDocument, KeyInput, Plan,
    PlanOptions, PlannedTask, Provenance, RunsDifference, TaskDifference, Why, differences, plan,
    runs_difference, why,
};
pub use limited::LimitedRunner;
pub use memory::{MemoryLeases, MemoryLogs, MemoryObjects, MemoryRefs, MemoryStorage};
pub use mock::{MockCall, MockResponse, MockTaskRunner};
pub use seams::{
    Access, Acquired, ByteStream, Cancellation, EventSink, Gate, Holder, Lease, LeaseError, LeaseMode,
    LeaseStore, LogError, LogStore, LogStream, NoEvents, ObjectError, ObjectStamp, ObjectStore,
    ObjectStoreExt, OutputSink, Precondition, ProcessIdentity, RefChange, RefError, RefName, RefStore,
    Released, Scan, Source, StageItem, StorageBackend, StorageError, TaskExecuteOptions, TaskResult,
    TaskRunner, Unavailable, Uncommitted,
};
pub use tree::{Tree, TreeBuilder, TreeEntry, TreeError, TreeProblem, read_tree, tree_size};
pub use turn::step_back;
pub use views::{
    DatasetError, DatasetRef, DeployReport, Deployment, Derivation, EventCursor, ExecutionRecord, Following,
    HistoryEntry, HistoryRecord, Looks, Operation, OperationKind, Origin, PackageChange, PackageError,
    ResultRecord, RootChange, RunOptions, RunRecord, TaskStatus, UndoError, WorkspaceError, WorkspaceLease,
    WorkspaceRecord, datasets, executions, history, operations, packages, runs, status, workspaces,
};
