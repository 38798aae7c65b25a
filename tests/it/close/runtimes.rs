//! Closing from plain threads, and maps that outlive their runtime.

use super::*;

/// Many threads write while the map is closed, on real threads and real time.
#[test]
fn a_write_before_a_close_that_succeeds_is_in_the_store() {
    let runtime = threads(2);
    std::panic::set_hook(Box::new(quiet));
    for round in 0..200 {
        let store = store();
        let map: PersistentMap<u32> = runtime
            .block_on(builder(&store).batch(50, SECOND).open())
            .unwrap();
        let start = Arc::new(Barrier::new(9));
        let written: Arc<[AtomicU64; 8]> = Arc::default();
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let (map, start, written) = (map.clone(), start.clone(), written.clone());
                let handle = runtime.handle().clone();
                std::thread::spawn(move || {
                    start.wait();
                    let write = || write_until_closed(&map, &handle, thread, &written[thread]);
                    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
                    drop(stopped);
                })
            })
            .collect();
        start.wait();
        let counts = || written.iter().map(|count| count.load(SeqCst));
        while counts().sum::<u64>() < 100 * (round % 20) {
            std::thread::yield_now();
        }
        runtime.block_on(map.close()).unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let stored = runtime.block_on(stored(&store));
        for (thread, written) in counts().enumerate() {
            for n in 0..written {
                assert!(
                    stored.contains_key(&format!("{thread}/{n}")),
                    "round {round}"
                );
            }
        }
        assert_eq!(stored, in_memory(&map), "round {round}");
    }
    drop(std::panic::take_hook());
}

/// Silences the panics of writes to a closed map: there are hundreds of them.
fn quiet(panic: &std::panic::PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or_default();
    if !said.contains("the map is closed") {
        eprintln!("{panic}");
    }
}

/// Writes until the map is closed; one write in 64 is a save. `written` counts the successful
/// writes.
fn write_until_closed(
    map: &PersistentMap<u32>,
    runtime: &tokio::runtime::Handle,
    thread: usize,
    written: &AtomicU64,
) {
    for n in 0.. {
        let key = format!("{thread}/{n}");
        if n % 64 == 0 {
            match runtime.block_on(map.insert_and_save(&key, n)) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed);
                    assert!(!map.contains_key(&key), "{error}");
                    return;
                }
            }
        } else {
            map.insert(&key, n);
        }
        written.fetch_add(1, SeqCst);
    }
}

fn threads(workers: usize) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    { runtime }
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

fn current_thread() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.enable_all().build().unwrap()
}

#[test]
fn blocking_close_works_from_a_plain_thread() {
    let runtime = threads(1);
    let store = store();
    let map = runtime.block_on(open_numbers(&store));
    map.insert("a", 1);
    map.blocking_close().unwrap();
    map.blocking_close().unwrap();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 1)]));
    let map = runtime
        .block_on(builder::<u32>(&store).retry(impatient()).open())
        .unwrap();
    store.down(ErrorKind::Unusable);
    map.insert("b", 1);
    assert_eq!(names(&map.blocking_close().unwrap_err()), ["b"]);
    map.insert("c", 1);
}

#[test]
fn blocking_close_never_hangs_where_it_cannot_work() {
    let runtime = current_thread();
    let map = runtime.block_on(open_numbers(&store()));
    map.insert("a", 1);
    let error = map.blocking_close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("block_on"), "{error}");
    runtime.block_on(async {
        assert_eq!(map.blocking_close().unwrap_err().kind(), ErrorKind::Invalid);
        map.insert("b", 1);
        map.close().await.unwrap();
    });
    let runtime = threads(1);
    let map = runtime.block_on(open_numbers(&store()));
    runtime.block_on(async {
        assert_eq!(map.blocking_close().unwrap_err().kind(), ErrorKind::Invalid);
        map.insert("a", 1);
    });
}

/// After its runtime had ended, a map whose close had failed rejected writes as if it were closed,
/// and `close_within` panicked.
#[test]
fn a_map_that_outlives_its_runtime_errs_and_never_hangs() {
    for workers in [0, 2] {
        let runtime = if workers == 0 {
            current_thread()
        } else {
            threads(workers)
        };
        let store = store();
        let map = runtime.block_on(open_numbers(&store));
        runtime.block_on(map.insert_and_save("a", 1)).unwrap();
        map.insert("b", 2);
        let mut waiting = Box::pin(map.flush());
        if workers == 0 {
            assert!((&mut waiting).now_or_never().is_none());
        }
        drop(runtime);
        if workers == 0 {
            assert_eq!(run(waiting).unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
        assert_eq!((map.get("a"), map.len()), (Some(1), 2));
        let errors = [
            run(Box::pin(map.flush())).unwrap(),
            run(Box::pin(map.reload())).unwrap(),
            run(Box::pin(map.clear_and_save())).unwrap(),
            run(Box::pin(async {
                map.insert_and_save("c", 3).await.map(drop)
            }))
            .unwrap(),
            run(Box::pin(async { map.remove_and_save("c").await.map(drop) })).unwrap(),
            run(Box::pin(map.close())).unwrap(),
            run(Box::pin(map.close_within(SECOND))).unwrap(),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let said = cause.unwrap_or_else(|| error.to_string());
            assert!(said.contains("runtime"), "{said}");
        }
        map.insert("d", 4);
        let error = run(Box::pin(map.close())).unwrap().unwrap_err();
        assert_eq!(names(&error), ["d"]);
        map.blocking_close().unwrap_err();
        assert_eq!(map.get("d"), Some(4));
    }
}

/// The output of a future that must be ready at once.
fn run(future: BoxFuture<'_, persistify::Result<()>>) -> Option<persistify::Result<()>> {
    future.now_or_never()
}

/// `close_within` needs a timer, and its caller may be on no runtime.
#[test]
fn close_within_works_from_a_plain_thread() {
    let runtime = threads(1);
    let store = store();
    let map = runtime.block_on(open_numbers(&store));
    map.insert("a", 1);
    let (send, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let closing = async move { drop(send.send(map.close_within(HOUR).await)) };
        run_here(closing);
    });
    closed.recv().unwrap().unwrap();
    assert_eq!(runtime.block_on(stored(&store)), pairs([("a", 1)]));
}

/// Compile-time check: maps and stores are `Send`, `Sync` and `Clone`.
#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<PersistentMap<u32>>();
    shared::<Store>();
}
