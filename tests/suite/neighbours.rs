//! Engines beside each other on a device that is short of memory: what one plans, predicts or
//! measures leaves the others what they hold and what their calls need.

use crate::common::hooked::Hooked;
use crate::common::small::{CONTEXT, bits, compile};
use crate::common::tiny::tokens;
use crate::predict::COSTS;
use candle_trt::device::{Device, Host, HostMode};
use candle_trt::{Allocation, Compiler, Engine, Error, Profile, Request};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MODES: [HostMode; 2] = [HostMode::Unified, HostMode::Discrete];

/// What an engine takes of a device.
struct Sizes {
    floor: u64,
    total: u64,
    /// Beside weights, with one session.
    other: u64,
}

fn sizes(set: impl FnOnce(Compiler) -> Compiler) -> Sizes {
    let set = |c: Compiler| set(c).budget(Request::Full).allocation(Allocation::Static);
    let engine = compile(Arc::new(Host::discrete()), set).expect("there is memory");
    let memory = engine.memory();
    Sizes {
        floor: engine.minimum_device_budget(),
        total: engine.total_device_budget(),
        other: memory.activations + memory.constants + memory.states_per_session,
    }
}

/// A device with so many bytes beside the 64th that automatic budgets leave alone.
fn host(mode: HostMode, bytes: u64) -> Arc<dyn Device> {
    Arc::new(Host::new(mode).with_memory(bytes + bytes / 63 + 1))
}

/// What engines on automatic may take of it together.
fn shared(device: &Arc<dyn Device>) -> u64 {
    let total = device.info().total_memory;
    total - total / 64
}

fn budget(engine: &Engine) -> u64 {
    engine.device_budget().expect("a budget").applied
}

/// Calls of a few tokens: they take less than the weights.
fn short(compiler: Compiler) -> Compiler {
    compiler.profile(Profile::decoder(CONTEXT, 2).expect("a profile"))
}

/// An engine that makes way for nobody, whose calls need memory of their own; and one at its floor
/// beside it, with room for `more` bytes of weights, that lets it call in each of its own calls.
fn beside(mode: HostMode, more: u64) -> (Engine, Engine) {
    let (large, small) = (sizes(|c| c), sizes(short));
    let needed = large.total + large.other + small.floor + small.other;
    let device = host(mode, needed + more);
    let set = |c: Compiler| c.budget(Request::Full).allocation(Allocation::Dynamic);
    let neighbour = compile(device.clone(), set).expect("there is memory");
    let session = Mutex::new(neighbour.session().expect("a session"));
    let calls = Hooked::on_begin(move || {
        let mut session = session.lock().expect("nobody panicked");
        session.reset();
        let longest = tokens(CONTEXT - 4);
        session.prefill(&longest).expect("a call of the neighbour");
    });
    let set = |c: Compiler| short(c).budget(Request::Minimum).allocation(calls);
    let engine = compile(device, set).expect("there is memory");
    (neighbour, engine)
}

#[test]
fn a_prediction_for_automatic_is_for_what_automatic_gives() {
    for mode in MODES {
        let one = sizes(|c| c);
        let device = host(mode, 2 * one.other + one.total + one.floor);
        let engines = [(); 2].map(|()| compile(device.clone(), |c| c).expect("room for floors"));
        for engine in &engines {
            engine.set_costs(&[], COSTS).expect("a decoder's token");
            let predicted = engine.predict(Request::Automatic).expect("a budget").budget;
            assert_eq!(predicted, engine.automatic_device_budget());
            assert!(one.floor < predicted && predicted < one.total);
            engine.set_device_budget(Request::Automatic).expect("room");
            assert_eq!(predicted, budget(engine));
        }
    }
}

#[test]
fn calibrating_makes_no_neighbour_give_way() {
    for mode in MODES {
        let (neighbour, engine) = beside(mode, 20_000);
        let before = (neighbour.device_budget(), engine.device_budget());
        let before = (before.0.expect("a budget"), before.1.expect("a budget"));
        engine.calibrate(&[]).expect("it is measured");
        let memory = neighbour.memory();
        assert!(memory.high_water > memory.in_use, "it has called");
        assert_eq!(memory.pressure.shrinks, 0, "{mode:?}");
        assert_eq!(neighbour.device_budget().expect("a budget"), before.0);
        assert_eq!(engine.device_budget().expect("a budget"), before.1);
    }
}

#[test]
fn the_states_that_calibrating_needs_are_not_taken_from_the_calls_of_others() {
    for mode in MODES {
        let (neighbour, engine) = beside(mode, 0);
        let _session = engine.session().expect("its states are planned for");
        let error = engine
            .calibrate(&[])
            .expect_err("there is no room for more");
        let states = engine.memory().states_per_session;
        assert_eq!(error.out_of_memory(), Some(states), "{error}");
        assert_eq!(neighbour.memory().pressure.shrinks, 0);
    }
}

#[test]
fn the_budget_for_a_time_is_one_that_no_neighbour_gives_way_for() {
    for mode in MODES {
        let more = 20_000;
        let (neighbour, engine) = beside(mode, more);
        engine.set_costs(&[], COSTS).expect("a decoder's token");
        let most = match engine.budget_for(Duration::from_micros(1)) {
            Err(Error::LatencyOutOfReach { budget, .. }) => budget,
            other => panic!("{other:?}"),
        };
        let expected = engine.minimum_device_budget() + more;
        assert!(expected <= most && most < expected + 100, "{most}");
        let request = Request::Bytes(most);
        engine.set_device_budget(request).expect("it fits");
        let mut session = engine.session().expect("it fits too");
        session.prefill(&tokens(2)).expect("so does a call of each");
        for engine in [&neighbour, &engine] {
            assert_eq!(engine.memory().pressure.shrinks, 0, "{mode:?}");
        }
        // What is in force is within reach, also where it has the reserve.
        let found = engine.budget_for(Duration::from_micros(1));
        let same = matches!(found, Err(Error::LatencyOutOfReach { budget, .. }) if budget == most);
        assert!(same, "{found:?}");
    }
}

#[test]
fn engines_that_are_made_at_once_share_what_is_free() {
    for mode in MODES {
        let one = sizes(|c| c);
        let device = host(mode, 4 * (one.other + one.floor) + one.total);
        let make = || {
            // All of them would be planned before the first has taken anything.
            let slow = Hooked::on_join(|| std::thread::sleep(Duration::from_millis(200)));
            compile(device.clone(), |c| c.allocation(slow)).expect("room for one more")
        };
        let engines: Vec<Engine> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            let made = threads.into_iter().map(|t| t.join().expect("it is made"));
            made.collect()
        });
        let budgets: Vec<u64> = engines.iter().map(budget).collect();
        let sum = budgets.iter().sum::<u64>() + 4 * one.other;
        let most = shared(&device);
        assert!(sum <= most, "{budgets:?} and needs are {sum} of {most}");
        for engine in &engines {
            bits(engine);
        }
        let shrinks = |e: &Engine| e.memory().pressure.shrinks;
        assert!(engines.iter().all(|e| shrinks(e) == 0), "{mode:?}");
    }
}

#[test]
fn automatic_budgets_are_asked_for_by_many_at_once_while_calls_run() {
    for mode in MODES {
        let one = sizes(|c| c);
        let device = host(mode, 3 * (one.other + one.floor) + one.total);
        let make = |_| {
            let set = |c: Compiler| c.allocation(Allocation::Dynamic);
            compile(device.clone(), set).expect("room for one more")
        };
        let engines: Vec<Engine> = (0..3).map(make).collect();
        let wanted = bits(&engines[0]);
        std::thread::scope(|scope| {
            for engine in &engines {
                scope.spawn(|| (0..3).for_each(|_| assert!(bits(engine) == wanted)));
                scope.spawn(|| {
                    for _ in 0..20 {
                        engine.set_device_budget(Request::Automatic).expect("room");
                        engine.regrow().expect("room");
                    }
                });
            }
        });
        for engine in &engines {
            engine.set_device_budget(Request::Automatic).expect("room");
        }
        let sum = engines.iter().map(budget).sum::<u64>() + 3 * one.other;
        assert!(sum <= shared(&device), "{sum} bytes");
    }
}
