//! Leases, called as the map calls them.

use super::*;
use crate::clock::SystemClock;

/// The schedule used to grow with the number of writes instead of the number of
/// entries.
#[test]
fn a_million_writes_of_one_key_leave_one_deadline() {
    let plan = Expiry {
        time_to_live: Some(Duration::from_mins(1)),
        time_to_idle: None,
        listener: None,
    };
    let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
    let lifetime: Expiring<u64> = Plan::<u64>::begin(plan, clock);
    let key: Arc<str> = "key".into();
    let mut lease = lifetime.lease(&key, None, NEVER, lifetime.now());
    for n in 0..1_000_000 {
        // A shorter time moves the scheduled deadline, a longer one leaves it.
        let own = Duration::from_secs(n % 50 + 1);
        lease = Leases::<u64>::begin(&lifetime, &key, Some(own), Some(&lease));
    }
    assert_eq!(lifetime.schedule.len(), 1);
    Leases::<u64>::ended(&lifetime, &key, &lease);
    assert_eq!(lifetime.schedule.len(), 0);
}

/// A reader that had found the entry alive moved its deadline after another
/// reader had found it expired: the entry came back.
#[tokio::test(start_paused = true)]
async fn a_late_reader_does_not_revive_an_entry_found_expired() {
    let plan = Expiry {
        time_to_live: None,
        time_to_idle: Some(Duration::from_secs(1)),
        listener: None,
    };
    let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
    let lifetime: Expiring<u64> = Plan::<u64>::begin(plan, clock);
    let lease = lifetime.lease(&"key".into(), None, NEVER, lifetime.now());
    assert!(Leases::<u64>::is_live(&lifetime, &lease));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!Leases::<u64>::is_live(&lifetime, &lease));
    assert!(!Leases::<u64>::used(&lifetime, &lease));
    assert!(!Leases::<u64>::is_live(&lifetime, &lease));
}
