//! Budgets on the GPU as the contract says: of several engines together, in scopes, while calls run,
//! and by the driver's count.

use crate::cases::Size;
use crate::models::{self, heavy, tall, tokens};
use crate::small::{Stingy, bits, compile};
use crate::stress::stress;
use crate::tiny::Tiny;
use crate::{cuda, cuda_alone, free};
use candle_core::DType;
use candle_trt::device::{self, Device};
use candle_trt::{Allocation, Applied, DeviceBudget, Engine, Error, Priority, Request, Shared};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn two(device: &Arc<dyn Device>) -> [Engine; 2] {
    [(); 2]
        .map(|()| compile(device.clone(), |c| c.budget(Request::Minimum)).expect("room for floors"))
}

fn applied(engines: &[Engine; 2]) -> [u64; 2] {
    let budget = |e: &Engine| e.device_budget().expect("a budget").applied;
    engines.each_ref().map(budget)
}

fn joined(device: &Arc<dyn Device>, engines: &[Engine; 2], request: &str) -> DeviceBudget {
    let budget = DeviceBudget::new(device.clone(), request.parse().expect("a budget"));
    for engine in engines {
        budget.join(engine, Priority::NORMAL).expect("room");
    }
    budget
}

#[test]
fn the_budgets_of_two_engines_add_up_to_what_was_asked() {
    let Some(gpu) = cuda() else { return };
    let engines = two(&gpu);
    let wanted = bits(&engines[0]);
    let budget = joined(&gpu, &engines, "min");
    let floor: u64 = engines.iter().map(Engine::minimum_device_budget).sum();
    let total: u64 = engines.iter().map(Engine::total_device_budget).sum();
    for bytes in (0..=5).map(|i| floor + (total - floor) * i / 5) {
        let plan = budget.set(Request::Bytes(bytes)).expect("above the floors");
        assert_eq!((plan.spent, plan.remainder), (bytes, 0));
        assert_eq!(applied(&engines).iter().sum::<u64>(), bytes);
        for engine in &engines {
            assert!(bits(engine) == wanted, "other bits at {bytes}");
            assert!(engine.memory().weights <= engine.device_budget().expect("one").applied);
        }
    }
    assert_eq!(engines.each_ref().map(|e| e.last_traffic().bytes), [0, 0]);
}

#[test]
fn if_one_engine_cannot_grow_the_one_that_shrank_for_it_has_its_budget_back() {
    let Some(gpu) = cuda() else { return };
    let stingy = Stingy::on(gpu);
    let device: Arc<dyn Device> = stingy.clone();
    let engines = two(&device);
    let wanted = bits(&engines[0]);
    let budget = joined(&device, &engines, "50%");
    let before = applied(&engines);
    // As much as each has, and not what the second is to have.
    stingy.refuse_above(before[0].max(before[1]) as usize);
    let error = budget.join(&engines[1], Priority(1000));
    let error = error.expect_err("the second cannot grow");
    let second = matches!(error, Error::Member { engine: 1, .. });
    assert!(second && error.out_of_memory().is_some(), "{error}");
    assert_eq!(applied(&engines), before);
    assert!(engines.iter().all(|e| bits(e) == wanted));
    stingy.refuse_above(usize::MAX);
    let plan = budget.join(&engines[1], Priority(1000)).expect("it can");
    assert!(applied(&engines)[1] > before[1], "{plan}");
    assert!(engines.iter().all(|e| bits(e) == wanted));
}

fn checkpoint(model: &Tiny, device: &Arc<dyn Device>) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    models::compile(dir.path(), model, DType::F32, device.clone(), true)
}

#[test]
fn two_engines_on_automatic_share_what_is_free_by_the_drivers_count() {
    let Some(gpu) = cuda_alone() else { return };
    let engines = [(); 2].map(|()| checkpoint(&heavy(), &gpu));
    let mut sessions = engines.each_ref().map(|e| e.session().expect("a session"));
    let mut run = || {
        for session in &mut sessions {
            session.reset();
            session.prefill(&tokens(400)).expect("a prompt");
            (0..3).for_each(|t| drop(session.decode(t).expect("a token")));
        }
    };
    for request in [Request::Full, Request::Minimum] {
        let set = |e: &Engine| e.set_device_budget(request).map(drop);
        engines.iter().try_for_each(set).expect("memory");
        run();
    }
    // Another party leaves the reserve and room for one of them and a little of the other.
    let reserve = gpu.info().total_memory / 64;
    let gain = engines[0].total_device_budget() - engines[0].minimum_device_budget();
    let but = reserve + gain * 6 / 5;
    let other = device::open("cuda:0").expect("the same GPU");
    let bytes = (free(&gpu) - but) as usize;
    let taken = other.reserve(bytes).expect("addresses");
    other.commit(&taken, bytes).expect("it is free");

    let set = |e: &Engine| e.set_device_budget(Request::Automatic).expect("its share");
    let alone = set(&engines[0]);
    assert_eq!(alone.applied, alone.total, "one has room");
    set(&engines[1]);
    let shares = applied(&engines);
    assert!(shares.iter().all(|s| *s < alone.total), "{shares:?}");
    assert!(shares[0].abs_diff(shares[1]) < gain / 10, "{shares:?}");
    let sum: u64 = shares.iter().sum();
    assert!(sum > alone.total, "all that is free is used: {shares:?}");
    run();
    let left = free(&gpu);
    assert!(
        left + 8 * MIB >= reserve,
        "{left} of a reserve of {reserve}"
    );
    for engine in &engines {
        assert_eq!(engine.memory().pressure.shrinks, 0, "nothing was refused");
    }
    drop(taken);
    assert_eq!(
        engines.each_ref().map(set).map(|b| b.total - b.applied),
        [0, 0]
    );
}

#[test]
fn engines_that_share_an_arena_hold_the_larger_by_the_drivers_count() {
    let Some(gpu) = cuda_alone() else { return };
    let engines = [16384, 8192].map(|inner| checkpoint(&tall(inner), &gpu));
    let mut sessions = engines.each_ref().map(|e| e.session().expect("a session"));
    let arena = |e: &Engine| e.report().classes.iter().map(|c| c.arena_bytes).max();
    let arenas = engines.each_ref().map(|e| arena(e).expect("a class"));
    assert!(arenas[0] >= 32 * MIB && arenas[1] >= 16 * MIB, "{arenas:?}");
    let mut now_free = |allocation: Allocation| {
        for (engine, session) in engines.iter().zip(&mut sessions) {
            let own = allocation.clone();
            engine.set_allocation(own).expect("there is memory");
            session.reset();
            session.prefill(&tokens(512)).expect("a prompt");
            (0..3).for_each(|t| drop(session.decode(t).expect("a token")));
        }
        free(&gpu)
    };
    let shared = Shared::new();
    // What the first calls make for good.
    for allocation in [Allocation::Static, Allocation::from(&shared)] {
        now_free(allocation);
    }
    let idle = now_free(Allocation::Dynamic);
    let mut held = |allocation| idle.saturating_sub(now_free(allocation));
    let each = held(Allocation::Static);
    let together = held(Allocation::from(&shared));
    let slack = 4 * MIB;
    assert!(
        each + slack >= arenas[0] + arenas[1],
        "{each} of {arenas:?}"
    );
    assert!(together + slack >= arenas[0], "{together} of {arenas:?}");
    assert!(together <= arenas[0] + slack, "{together} of {arenas:?}");
}

fn now(engine: &Engine) -> (Applied, u64, u64) {
    let budget = engine.device_budget().expect("a budget");
    (budget, engine.device_limit(), engine.memory().weights)
}

/// Every kind of request, and so every kind of split.
fn starts(engine: &Engine) -> Vec<Request> {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    vec![
        Request::Minimum,
        Request::Bytes(floor + 1),
        "40%".parse().expect("a share"),
        Request::Bytes(total + 5),
        Request::Full,
        Request::Automatic,
    ]
}

#[test]
fn a_scope_restores_exactly_what_it_found_on_every_way_out() {
    let Some(gpu) = cuda() else { return };
    let engine = compile(gpu, |c| c).expect("it compiles");
    let wanted = bits(&engine);
    for start in starts(&engine) {
        engine.set_device_budget(start).expect("a budget");
        let before = now(&engine);
        for inside in starts(&engine) {
            {
                let mut outer = engine.weight_streaming().expect("a scope");
                outer.set_device_budget(inside).expect("a budget");
                let between = now(&engine);
                let mut inner = engine.weight_streaming().expect("a scope");
                inner.set_device_limit(1 << 30).expect("a limit");
                inner.set_device_budget(start).expect("a budget");
                drop(inner);
                assert_eq!(now(&engine), between, "nested in {inside}");
            }
            assert_eq!(now(&engine), before, "after {inside} in {start}");
            let early = || -> Result<(), Error> {
                let mut scope = engine.weight_streaming()?;
                scope.set_device_budget(inside)?;
                scope.set_device_limit(1)?;
                Ok(())
            };
            early().expect_err("a limit of a byte");
            assert_eq!(now(&engine), before, "after an error in {start}");
            let panics = AssertUnwindSafe(|| {
                let mut scope = engine.weight_streaming().expect("a scope");
                scope.set_device_budget(inside).expect("a budget");
                panic!("in a scope");
            });
            catch_unwind(panics).expect_err("it panicked");
            assert_eq!(now(&engine), before, "after a panic in {start}");
        }
        assert!(bits(&engine) == wanted, "other bits at {start}");
    }
}

#[test]
fn scopes_of_two_engines_may_end_in_any_order() {
    let Some(gpu) = cuda() else { return };
    let [a, b] = two(&gpu);
    let wanted = bits(&a);
    a.set_device_budget(Request::Full).expect("memory");
    b.set_device_budget("60%".parse().expect("a share"))
        .expect("memory");
    let outside = [now(&a), now(&b)];
    let mut of_a = a.weight_streaming().expect("a scope");
    of_a.set_device_budget(Request::Minimum).expect("a budget");
    let mut of_b = b.weight_streaming().expect("a scope");
    of_b.set_device_budget(Request::Full).expect("a budget");
    let inside = now(&b);
    drop(of_a);
    assert_eq!([now(&a), now(&b)], [outside[0], inside]);
    drop(of_b);
    assert_eq!([now(&a), now(&b)], outside);
    assert!(bits(&a) == wanted && bits(&b) == wanted);
}

#[test]
fn budgets_may_change_while_several_threads_call() {
    let Some(gpu) = cuda() else { return };
    // Under a tool that watches every access, calls take many times as long.
    stress(
        gpu,
        false,
        Duration::from_millis(Size::wanted().pick(1500, 8000)),
    );
}

#[test]
fn a_budget_that_does_not_move_is_no_work() {
    let Some(gpu) = cuda_alone() else { return };
    let engine = compile(gpu.clone(), |c| c).expect("it compiles");
    for request in starts(&engine) {
        engine.set_device_budget(request).expect("a budget");
        bits(&engine);
        let work = || (engine.memory().budget_changes, engine.traffic(), free(&gpu));
        let before = work();
        engine.set_device_budget(request).expect("the same");
        drop(engine.weight_streaming().expect("an empty scope"));
        engine.regrow().expect("nothing to grow");
        assert_eq!(work(), before, "{request}");
    }
}

#[test]
fn one_engine_may_give_memory_back_while_another_records_its_calls() {
    let Some(gpu) = cuda() else { return };
    let [recording, moving] = two(&gpu);
    recording.set_device_budget(Request::Full).expect("room");
    let wanted = bits(&recording);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for request in [Request::Full, Request::Minimum] {
                    moving.set_device_budget(request).expect("room");
                }
            }
        });
        let before = recording.replayed_calls();
        for _ in 0..Size::wanted().pick(100, 10) {
            // Forgets what was recorded, so that it is recorded anew.
            recording.set_replay(false);
            recording.set_replay(true);
            assert!(bits(&recording) == wanted, "other bits");
        }
        done.store(true, Ordering::SeqCst);
        assert!(recording.replayed_calls() > before, "calls were recorded");
    });
}
