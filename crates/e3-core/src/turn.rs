//! Giving up one's turn.

use std::{future::poll_fn, task::Poll};

/// Lets everything go first that is ready to be done on this thread. Other than after `tokio::task::yield_now`, which waits until the
/// thread has nothing else to do, a thread that is idle may take over what follows: for what is not urgent, but is work.
pub async fn step_back() {
    let mut has_stepped_back = false;
    poll_fn(|context| {
        if has_stepped_back {
            return Poll::Ready(());
        }
        has_stepped_back = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_goes_first() {
        static ORDER: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        let done = |what| ORDER.lock().unwrap().push(what);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            done("its beginning");
            step_back().await;
            done("its end");
        });
        tasks.spawn(async move { done("another") });
        tasks.join_all().await;
        assert_eq!(*ORDER.lock().unwrap(), ["its beginning", "another", "its end"]);
    }
}
