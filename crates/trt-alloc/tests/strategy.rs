//! What each strategy holds, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trt_alloc::{Allocation, Arena, Dynamic, Error, Hold, Pool, Purpose, Shared, Static, Strategy};
use trt_device::{Device, Host, Work};

fn pool(limit: u64) -> Pool {
    Pool::new(Arc::new(Host::discrete()), limit)
}

#[test]
fn the_static_strategy_holds_one_arena_from_joining_to_leaving() {
    let pool = pool(10_000);
    let strategy = Static::default();
    strategy.join(&pool, 4096).unwrap();
    let mut starts = Vec::new();
    for _ in 0..3 {
        let arena = strategy.begin(&pool, 1000).unwrap();
        assert_eq!(arena.bytes(), 4096);
        assert_eq!(arena.slice(256, 100).unwrap().offset(), 256);
        assert!(arena.slice(4000, 100).is_err());
        starts.push(arena.slice(0, 0).unwrap().address());
        strategy.end(arena);
        assert_eq!(pool.in_use_by(Purpose::Activations), 4096);
    }
    assert!(starts.iter().all(|s| *s == starts[0]), "{starts:?}");
    strategy.leave(&pool, 4096);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn the_static_strategy_refuses_what_it_does_not_hold() {
    let pool = pool(10_000);
    let strategy = Static::default();
    strategy.join(&pool, 4096).unwrap();
    let error = strategy.begin(&pool, 4097).unwrap_err();
    assert!(matches!(
        error,
        Error::ArenaTooSmall {
            asked: 4097,
            held: 4096,
            ..
        }
    ));
    let _in_use = strategy.begin(&pool, 1).unwrap();
    let error = strategy.begin(&pool, 1).unwrap_err();
    assert!(matches!(error, Error::ArenaBusy { held: 4096, .. }));
    let error = strategy.join(&pool, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the static arena belongs to another engine"
    );
}

#[test]
fn the_dynamic_strategy_holds_what_a_call_needs_and_only_during_it() {
    let pool = pool(10_000);
    Dynamic.join(&pool, 9000).unwrap();
    assert_eq!(pool.in_use(), 0);
    for bytes in [100, 9000, 5] {
        let arena = Dynamic.begin(&pool, bytes).unwrap();
        assert_eq!((arena.bytes(), pool.in_use()), (bytes, bytes));
        Dynamic.end(arena);
        assert_eq!(pool.in_use(), 0);
    }
    assert!(Dynamic.begin(&pool, 10_001).is_err());
}

#[test]
fn a_shared_arena_is_the_largest_need_of_one_pool_not_the_sum() {
    let pool = pool(1 << 20);
    let shared = Shared::new();
    for (most, held) in [(1000, 1000), (3000, 3000), (2000, 3000)] {
        shared.join(&pool, most).unwrap();
        assert_eq!((shared.bytes(), pool.in_use()), (held, held));
    }
    assert_eq!(shared.members(), 3);
    for (most, held) in [(3000, 2000), (1000, 2000), (2000, 0)] {
        shared.leave(&pool, most);
        assert_eq!((shared.bytes(), pool.in_use()), (held, held));
    }
}

#[test]
fn each_pool_counts_what_its_own_members_need() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let small = Pool::new(device.clone(), 1000);
    let large = Pool::new(device, 5000);
    let shared = Shared::new();
    shared.join(&small, 1000).unwrap();
    shared.join(&large, 5000).unwrap();
    assert_eq!((small.in_use(), large.in_use()), (1000, 5000));
    assert_eq!(shared.bytes(), 5000);
    shared.leave(&large, 5000);
    assert_eq!((small.in_use(), large.in_use()), (1000, 0));
    assert_eq!(shared.bytes(), 1000);
}

#[test]
fn who_does_not_fit_does_not_join_a_shared_arena() {
    let pool = pool(1000);
    let shared = Shared::new();
    shared.join(&pool, 600).unwrap();
    let error = shared.join(&pool, 1001).unwrap_err();
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");
    let elsewhere = Pool::new(Arc::new(Host::unified()), 1000);
    let error = shared.join(&elsewhere, 10).unwrap_err();
    let text = "the shared arena lies on host (discrete), but the engine runs on host (unified)";
    assert_eq!(error.to_string(), text);
    assert_eq!((shared.members(), shared.bytes()), (1, 600));
    assert_eq!((pool.in_use(), elsewhere.in_use()), (600, 0));
}

#[test]
fn a_shared_arena_grows_and_shrinks_in_place_and_keeps_its_content() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let pool = Pool::new(device.clone(), u64::MAX);
    let stream = device.stream("test").unwrap();
    let shared = Shared::new();
    shared.join(&pool, 8).unwrap();
    let first = shared.begin(&pool, 8).unwrap();
    let kept = first.slice(0, 8).unwrap();
    let (dst, bytes) = (kept.clone(), vec![7; 8]);
    device.submit(stream, Work::Write { dst, bytes }).unwrap();
    device.synchronize(stream).unwrap();
    shared.end(first);
    shared.join(&pool, 16 << 20).unwrap();
    let second = shared.begin(&pool, 16 << 20).unwrap();
    assert_eq!(second.slice(0, 0).unwrap().address(), kept.address());
    shared.end(second);
    shared.leave(&pool, 16 << 20);
    let mut read = [0; 8];
    device.read(stream, &kept, &mut read).unwrap();
    assert_eq!(read, [7; 8]);
}

#[test]
fn only_one_call_at_a_time_has_a_shared_arena() {
    let pool = pool(10_000);
    let shared = Shared::new();
    shared.join(&pool, 100).unwrap();
    shared.join(&pool, 200).unwrap();
    let first = shared.begin(&pool, 100).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let arena = shared.begin(&pool, 200).unwrap();
            assert!(ended.load(Ordering::SeqCst), "the first call still has it");
            shared.end(arena);
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!second.is_finished());
        ended.store(true, Ordering::SeqCst);
        shared.end(first);
    });
}

#[test]
fn who_leaves_a_shared_arena_waits_for_the_call_that_has_it() {
    let shared = Shared::new();
    let pool = pool(1 << 20);
    shared.join(&pool, 1000).unwrap();
    shared.join(&pool, 90_000).unwrap();
    let arena = shared.begin(&pool, 1000).unwrap();
    let left = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            shared.leave(&pool, 90_000);
            left.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(
            !left.load(Ordering::SeqCst),
            "memory of a call was given back"
        );
        shared.end(arena);
    });
    assert_eq!((shared.members(), shared.bytes()), (1, 1000));
    shared.leave(&pool, 1000);
}

#[test]
fn a_panic_gives_the_turn_up() {
    let pool = pool(10_000);
    let shared = Shared::new();
    shared.join(&pool, 100).unwrap();
    let call = std::panic::AssertUnwindSafe(|| {
        let _arena = shared.begin(&pool, 100).unwrap();
        panic!("in a call");
    });
    assert!(std::panic::catch_unwind(call).is_err());
    shared.end(shared.begin(&pool, 100).unwrap());
}

#[test]
fn only_what_stays_may_be_recorded() {
    let holds = [
        (Allocation::Static, Hold::Member),
        (Allocation::Shared(Shared::new()), Hold::Member),
        (Allocation::Dynamic, Hold::Call),
    ];
    for (allocation, hold) in holds {
        assert_eq!(allocation.strategy().hold(), hold, "{allocation}");
    }
}

#[test]
fn allocations_are_equal_if_changing_would_change_nothing() {
    let (a, b) = (Shared::new(), Shared::new());
    let own: Arc<dyn Strategy> = Arc::new(Dynamic);
    assert_eq!(Allocation::Static, Allocation::Static);
    assert_eq!(Allocation::from(&a), Allocation::Shared(a.clone()));
    assert_ne!(Allocation::from(&a), Allocation::from(&b));
    assert_eq!(
        Allocation::Custom(own.clone()),
        Allocation::Custom(own.clone())
    );
    assert_ne!(Allocation::Custom(own), Allocation::Dynamic);
    assert_ne!(Allocation::Static, Allocation::Dynamic);
}

#[test]
fn recorded_work_that_outlives_an_arena_sees_poison() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let pool = Pool::new(device.clone(), u64::MAX);
    let stream = device.stream("test").unwrap();
    let out = device.allocate(200_000).unwrap().whole();
    let arena = Arena::acquire(&pool, 200_000).unwrap();
    let (src, dst) = (arena.slice(0, 200_000).unwrap(), out.clone());
    let graph = device.record(vec![Work::Copy { dst, src }]).unwrap();
    arena.poison(&*device, stream).unwrap();
    Dynamic.end(arena);
    assert_eq!(pool.in_use(), 200_000, "a recording keeps what it uses");
    let env = trt_kernel::Env::default();
    let replay = Work::Replay {
        graph: graph.clone(),
        env,
    };
    device.submit(stream, replay).unwrap();
    let mut seen = vec![0; 200_000];
    device.read(stream, &out, &mut seen).unwrap();
    assert!(seen.iter().all(|b| *b == 0xa5));
    drop(graph);
    assert_eq!(pool.in_use(), 0);
}
