//! `MockTaskRunner`: a runner without processes, for tests of whatever uses a runner.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use e3_types::{ErrorClass, Failure, Hash, ObjectRef};

use crate::{
    Cancellation, Clock, ExecutionContext, Holder, ObjectStoreExt, Outcome, StorageBackend,
    TaskExecuteOptions, TaskResult, TaskRunner, Usage, perform,
};

/// What a mocked task does.
#[derive(Debug, Clone)]
pub struct MockResponse {
    made: Result<Made, Failure>,
    after: Duration,
}

#[derive(Debug, Clone)]
enum Made {
    Object(ObjectRef),
    Bytes(Bytes),
}

impl MockResponse {
    /// Succeeds with an object that is in the store already.
    pub fn object(output: ObjectRef) -> Self {
        Self { made: Ok(Made::Object(output)), after: Duration::ZERO }
    }

    /// Puts `bytes` into the store and succeeds with them.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { made: Ok(Made::Bytes(bytes.into())), after: Duration::ZERO }
    }

    /// Fails with an exit code.
    pub fn exit(code: i32) -> Self {
        Self::failure(Failure::Exit { code })
    }

    /// Errs with a message.
    pub fn error(message: impl Into<String>) -> Self {
        Self::failure(Failure::Error { class: ErrorClass::User, message: message.into() })
    }

    /// Fails in any way.
    pub fn failure(failure: Failure) -> Self {
        Self { made: Err(failure), after: Duration::ZERO }
    }

    /// The same after `delay` of tokio's time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}

/// A call of `execute`.
#[derive(Clone)]
pub struct MockCall {
    /// The task object.
    pub task: Hash,
    /// The inputs, in the task's order.
    pub inputs: Vec<Hash>,
    /// What it was called.
    pub label: String,
    /// Whether it was to be executed even if the result was known.
    pub force: bool,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The longest that it might take.
    pub timeout: Option<Duration>,
}

type Responder = Arc<dyn Fn(&MockCall) -> MockResponse + Send + Sync>;

/// A runner whose tasks do what the test says. Identity, cache and records are the real ones.
pub struct MockTaskRunner {
    clock: Arc<dyn Clock>,
    holder: Holder,
    state: Mutex<State>,
}

struct State {
    responses: HashMap<Hash, Responder>,
    default: Responder,
    calls: Vec<MockCall>,
    running: usize,
    most_running: usize,
}

impl MockTaskRunner {
    /// A runner whose tasks succeed, each with an output of its own that is decided by its key.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let holder = Holder { owner: clock.new_owner(), process: None, since: clock.now() };
        let default: Responder = Arc::new(|call: &MockCall| {
            let inputs: Vec<_> = call.inputs.iter().map(ToString::to_string).collect();
            MockResponse::bytes(format!("{} of {}", call.task, inputs.join(" ")))
        });
        let state =
            State { responses: HashMap::new(), default, calls: Vec::new(), running: 0, most_running: 0 };
        Self { clock, holder, state: Mutex::new(state) }
    }

    /// Sets what a task does from now on.
    pub fn respond(&self, task: Hash, response: MockResponse) {
        self.respond_with(task, move |_| response.clone());
    }

    /// Sets a closure that decides what a task does, call by call.
    pub fn respond_with(
        &self,
        task: Hash,
        response: impl Fn(&MockCall) -> MockResponse + Send + Sync + 'static,
    ) {
        self.state().responses.insert(task, Arc::new(response));
    }

    /// Sets what all other tasks do.
    pub fn respond_by_default(&self, response: impl Fn(&MockCall) -> MockResponse + Send + Sync + 'static) {
        self.state().default = Arc::new(response);
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<MockCall> {
        self.state().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// The largest number of tasks that were at work at one moment.
    pub fn most_running(&self) -> usize {
        self.state().most_running
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(
        &self,
        storage: &dyn StorageBackend,
        call: &MockCall,
        cancellation: &Cancellation,
    ) -> Outcome {
        let _at_work = AtWork::enter(self);
        let responder = {
            let state = self.state();
            Arc::clone(state.responses.get(&call.task).unwrap_or(&state.default))
        };
        let response = responder(call);
        let verdict = tokio::select! {
            biased;
            () = cancellation.requested() => Err(Failure::Cancelled),
            () = wait(response.after) => match response.made {
                Ok(Made::Object(object)) => Ok(object),
                Ok(Made::Bytes(bytes)) => storage.objects().put_bytes(bytes).await.map_err(|error| Failure::Error {
                    class: error.class(),
                    message: error.to_string(),
                }),
                Err(failure) => Err(failure),
            },
        };
        Outcome { verdict, usage: Usage::default(), notes: Vec::new() }
    }
}

/// No time is not even a turn of the timer.
async fn wait(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Counts a task as running until it is dropped.
struct AtWork<'a>(&'a MockTaskRunner);

impl<'a> AtWork<'a> {
    fn enter(runner: &'a MockTaskRunner) -> Self {
        let mut state = runner.state();
        state.running += 1;
        state.most_running = state.most_running.max(state.running);
        drop(state);
        Self(runner)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

#[async_trait]
impl TaskRunner for MockTaskRunner {
    async fn execute(
        &self,
        storage: &dyn StorageBackend,
        task: Hash,
        inputs: &[Hash],
        options: TaskExecuteOptions,
    ) -> TaskResult {
        if !options.time_comes().await {
            return TaskResult::without_execution(Failure::Cancelled);
        }
        let TaskExecuteOptions { ref label, force, attempt, timeout, .. } = options;
        let call = MockCall { task, inputs: inputs.to_vec(), label: label.clone(), force, attempt, timeout };
        self.state().calls.push(call.clone());
        let context = ExecutionContext { storage, clock: &*self.clock, holder: &self.holder, runner: "mock" };
        perform(context, task, inputs, &options, |_| self.work(storage, &call, &options.cancellation)).await
    }
}
