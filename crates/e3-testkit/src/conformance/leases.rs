//! Checks of `LeaseStore`.

use e3_core::{Acquired, Holder, Lease, LeaseMode, LeaseStore};

use super::Fixture;
use crate::holder;

async fn acquire(leases: &dyn LeaseStore, mode: LeaseMode, holder: &Holder) -> Result<Lease, Vec<Holder>> {
    match leases.acquire("workspace/main", mode, holder).await.unwrap() {
        Acquired::Lease(lease) => Ok(lease),
        Acquired::Held(holders) => Err(holders),
    }
}

/// An exclusive lease keeps everybody else out, who are told who has it.
pub async fn exclusive_leases_exclude(fixture: &Fixture) {
    let (leases, other) = (fixture.storage.leases(), fixture.other.leases());
    let (ann, bob) = (holder(1), holder(2));
    let held = acquire(leases, LeaseMode::Exclusive, &ann).await.unwrap();
    for mode in [LeaseMode::Exclusive, LeaseMode::Shared] {
        assert_eq!(acquire(other, mode, &bob).await.unwrap_err(), std::slice::from_ref(&ann));
        assert_eq!(acquire(leases, mode, &bob).await.unwrap_err(), std::slice::from_ref(&ann));
    }
    assert_eq!(other.inspect("workspace/main").await.unwrap(), [ann]);
    assert!(matches!(
        other.acquire("workspace/other", LeaseMode::Exclusive, &bob).await.unwrap(),
        Acquired::Lease(_)
    ));
    drop(held);
}

/// Shared leases go together, and keep an exclusive one out.
pub async fn shared_leases_share(fixture: &Fixture) {
    let (leases, other) = (fixture.storage.leases(), fixture.other.leases());
    let first = acquire(leases, LeaseMode::Shared, &holder(1)).await.unwrap();
    let second = acquire(other, LeaseMode::Shared, &holder(2)).await.unwrap();
    assert_eq!(acquire(leases, LeaseMode::Exclusive, &holder(3)).await.unwrap_err().len(), 2);
    drop(first);
    drop(second);
}

/// A lease that was dropped can be taken at once by the one who dropped it, and soon by others.
pub async fn a_dropped_lease_is_free(fixture: &Fixture) {
    let (leases, other) = (fixture.storage.leases(), fixture.other.leases());
    for _ in 0..10 {
        let held = acquire(leases, LeaseMode::Exclusive, &holder(1)).await.unwrap();
        drop(held);
        let again = acquire(leases, LeaseMode::Exclusive, &holder(1)).await.unwrap();
        drop(again);
        drop(other.acquire_when_free("workspace/main", &holder(2)).await.unwrap());
        drop(leases.acquire_when_free("workspace/main", &holder(1)).await.unwrap());
    }
    assert!(leases.inspect("workspace/nobody").await.unwrap().is_empty());
}

/// Who waits for a lease gets it when it is given back, not before.
pub async fn waiting_ends_when_the_lease_is_free(fixture: &Fixture) {
    let held = acquire(fixture.storage.leases(), LeaseMode::Exclusive, &holder(1)).await.unwrap();
    let bob = holder(2);
    let mut waiting = std::pin::pin!(fixture.other.leases().acquire_when_free("workspace/main", &bob));
    for _ in 0..3 {
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
    }
    drop(held);
    drop(waiting.await.unwrap());
}
