//! The metrics of a breaker.

use tokio::time::advance;

use super::*;
use crate::support::TestRecorder;

const STATE: &str = "persistify_breaker_state{provider=orders}";
const OPENINGS: &str = "persistify_breaker_openings_total{provider=orders}";

#[tokio::test(start_paused = true)]
async fn its_state_and_openings_are_metrics() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let store = store();
    let guarded = store.clone().layer(breaker().named("orders"));
    store.down(ErrorKind::Unavailable);
    let described = recorder.described();
    assert!(described.contains(&"persistify_breaker_state".to_owned()));
    for round in 0..2 {
        for _ in 0..3 {
            guarded.ping().await.unwrap_err();
        }
        let open = recorder.take();
        assert_eq!(
            (&open[STATE][..], &open[OPENINGS][..]),
            (&[2.0][..], &[1.0][..]),
            "{round}"
        );
        advance(10 * SECOND).await;
        // A probe that fails is not another opening.
        guarded.ping().await.unwrap_err();
        let again = recorder.take();
        assert_eq!((again[STATE][0], again.get(OPENINGS)), (2.0, None));
        advance(10 * SECOND).await;
        let hang = persistify::testing::Hang::new();
        store.up();
        store.fail_next_of(Method::Ping, 1, Fault::Hang(hang.clone()));
        let probing = guarded.clone();
        let probe = tokio::spawn(async move { probing.ping().await.map(drop) });
        hang.hangs().await;
        assert_eq!(recorder.take()[STATE], [1.0]);
        hang.release();
        probe.await.unwrap().unwrap();
        assert_eq!(recorder.take().get(STATE), None, "0 is closed");
        store.down(ErrorKind::Unavailable);
    }
}
