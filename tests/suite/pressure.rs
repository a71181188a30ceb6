//! When another party takes device memory: engines give way, go on with the same bits, and grow back
//! when asked.

use crate::common::small::{Stingy, bits, compile, take_all};
use crate::families::tokens;
use candle_trt::device::{Device, Host, HostMode};
use candle_trt::stream::Why;
use candle_trt::{Allocation, Compiler, Engine, Request};
use std::sync::{Arc, Mutex};
use tracing_subscriber::util::SubscriberInitExt as _;

const MIB: u64 = 1 << 20;
/// What automatic budgets leave alone of 64 MiB.
const RESERVE: u64 = MIB;

fn host(mode: HostMode, bytes: u64) -> Arc<dyn Device> {
    Arc::new(Host::new(mode).with_memory(bytes))
}

fn both(test: impl Fn(Arc<dyn Device>)) {
    test(host(HostMode::Unified, 64 * MIB));
    test(host(HostMode::Discrete, 64 * MIB));
}

fn full(device: &Arc<dyn Device>, allocation: Allocation) -> Engine {
    let set = |c: Compiler| c.budget(Request::Full).allocation(allocation);
    compile(device.clone(), set).expect("there is memory")
}

#[test]
fn a_call_that_is_refused_its_arena_goes_on_with_fewer_resident_weights() {
    both(|device| {
        let engine = full(&device, Allocation::Dynamic);
        let wanted = bits(&engine);
        let mut session = engine.session().expect("a session");
        let total = engine.total_device_budget();
        let other = take_all(&device, 1000);
        let logits = session.prefill(&tokens(9)).expect("weights make room");
        let got: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
        assert!(got == wanted[0], "other bits under pressure");
        let pressure = engine.memory().pressure;
        let last = pressure.last.expect("it gave way");
        let now = engine.device_budget().expect("a budget");
        assert_eq!((last.from, last.to), (total, now.used()));
        assert!(pressure.shrinks >= 1 && now.applied < total);
        assert_eq!(now.why, Why::Pressure { from: total });
        assert_eq!(now.requested, Request::Full);
        // The same call fits now; nothing more is given up for it.
        session.reset();
        session.prefill(&tokens(9)).expect("there is room");
        assert_eq!(engine.memory().pressure, pressure);
        assert_eq!(
            engine.regrow().expect("it runs").why,
            Why::Pressure { from: total }
        );
        drop(other);
        let grown = engine.regrow().expect("memory is back");
        assert_eq!((grown.applied, grown.why), (total, Why::AsAsked));
        assert!(bits(&engine) == wanted);
        assert_eq!(engine.last_traffic().bytes, 0);
    });
}

#[test]
fn the_states_of_a_session_come_before_resident_weights() {
    both(|device| {
        let engine = full(&device, Allocation::Static);
        let wanted = bits(&engine);
        let other = take_all(&device, 1000);
        assert!(bits(&engine) == wanted, "a new session finds room");
        assert!(engine.memory().pressure.shrinks > 0);
        drop(other);
    });
}

#[test]
fn a_static_arena_comes_before_resident_weights() {
    both(|device| {
        let engine = full(&device, Allocation::Dynamic);
        let (wanted, total) = (bits(&engine), engine.total_device_budget());
        let mut session = engine.session().expect("a session");
        let other = take_all(&device, 1000);
        let set = engine.set_allocation(Allocation::Static);
        set.expect("weights make room");
        assert_eq!(engine.allocation(), Allocation::Static);
        let memory = engine.memory();
        assert!(memory.activations > 0 && memory.pressure.shrinks > 0);
        let now = engine.device_budget().expect("a budget");
        assert_eq!(now.why, Why::Pressure { from: total });
        let logits = session.prefill(&tokens(9)).expect("it runs");
        let got: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
        assert!(got == wanted[0], "other bits");
        drop(other);
    });
}

#[test]
fn an_allocation_that_nothing_can_make_room_for_is_refused_and_the_one_before_stays() {
    both(|device| {
        let set = |c: Compiler| c.weight_streaming(false).allocation(Allocation::Dynamic);
        let engine = compile(device.clone(), set).expect("there is memory");
        let wanted = bits(&engine);
        let other = take_all(&device, 1000);
        let set = engine.set_allocation(Allocation::Static);
        let error = set.expect_err("no room for an arena");
        assert!(error.out_of_memory().is_some(), "{error}");
        assert_eq!(engine.allocation(), Allocation::Dynamic);
        assert_eq!(engine.memory().pressure.shrinks, 0);
        drop(other);
        assert!(bits(&engine) == wanted);
    });
}

#[test]
fn at_the_floor_a_refusal_is_an_error_and_the_engine_goes_on_later() {
    both(|device| {
        let engine = full(&device, Allocation::Dynamic);
        let wanted = bits(&engine);
        let mut session = engine.session().expect("a session");
        engine
            .set_device_budget(Request::Minimum)
            .expect("the floor");
        let floor = engine.device_budget().expect("a budget");
        let other = take_all(&device, 1000);
        let error = session
            .prefill(&tokens(9))
            .expect_err("no room for an arena");
        assert!(error.out_of_memory().is_some(), "{error}");
        assert_eq!(engine.device_budget().expect("a budget"), floor);
        assert_eq!(session.position(), 0);
        drop(other);
        session.prefill(&tokens(9)).expect("there is room again");
        assert!(bits(&engine) == wanted);
    });
}

#[test]
fn without_weight_streaming_weights_do_not_give_way() {
    let device = host(HostMode::Discrete, 64 * MIB);
    let set = |c: Compiler| c.weight_streaming(false).allocation(Allocation::Dynamic);
    let engine = compile(device.clone(), set).expect("there is memory");
    let mut session = engine.session().expect("a session");
    let other = take_all(&device, 1000);
    let error = session
        .prefill(&tokens(9))
        .expect_err("no room for an arena");
    assert!(error.out_of_memory().is_some(), "{error}");
    assert_eq!(engine.memory().pressure.shrinks, 0);
    drop(other);
    session.prefill(&tokens(9)).expect("there is room again");
}

#[test]
fn a_budget_that_is_refused_changes_nothing() {
    both(|device| {
        let engine = full(&device, Allocation::Static);
        let wanted = bits(&engine);
        let mut session = engine.session().expect("a session");
        let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
        for before in [floor, floor + (total - floor) / 3, total - 1] {
            let before = engine
                .set_device_budget(Request::Bytes(before))
                .expect("there is memory");
            let held = engine.memory().weights;
            let other = take_all(&device, 100);
            let error = engine
                .set_device_budget(Request::Full)
                .expect_err("no memory");
            assert!(error.out_of_memory().is_some(), "{error}");
            assert_eq!(engine.device_budget().expect("a budget"), before);
            assert_eq!(engine.memory().weights, held);
            session.reset();
            let logits = session.prefill(&tokens(9)).expect("it runs");
            assert!(
                logits
                    .iter()
                    .map(|v| v.to_bits())
                    .eq(wanted[0].iter().copied())
            );
            drop(other);
        }
    });
}

/// The device says that there is memory and then refuses it.
#[test]
fn automatic_settles_for_what_a_device_gives() {
    let device = Stingy::new();
    device.refuse_above(60_000);
    let shared: Arc<dyn Device> = device.clone();
    let engine = compile(shared.clone(), |c| c).expect("less will do");
    let first = engine.device_budget().expect("a budget");
    assert!(
        first.resident <= 60_000 && first.applied > first.floor,
        "{first:?}"
    );
    assert_eq!(first.requested, Request::Automatic);
    let wanted = bits(&engine);
    engine
        .set_device_budget(Request::Full)
        .expect_err("more is refused");
    assert_eq!(engine.device_budget().expect("a budget"), first);
    device.refuse_above(90_000);
    let more = engine
        .set_device_budget(Request::Automatic)
        .expect("what there is");
    assert!(
        more.applied > first.applied && more.resident <= 90_000,
        "{more:?}"
    );
    assert!(bits(&engine) == wanted);
    device.refuse_above(usize::MAX);
    let all = engine.regrow().expect("all of it");
    assert_eq!(all.applied, all.total);
    assert!(bits(&engine) == wanted);
}

#[test]
fn automatic_takes_what_is_free_and_leaves_room_for_what_is_planned() {
    both(|device| {
        let probe = full(&device, Allocation::Dynamic);
        let total = probe.total_device_budget();
        let states = probe.memory().states_per_session;
        drop(probe);
        let other = take_all(&device, RESERVE + states + total);
        let engine = compile(device.clone(), |c| c.allocation(Allocation::Dynamic));
        let engine = engine.expect("at least the floor");
        let first = engine.device_budget().expect("a budget");
        assert!(
            first.floor + 10_000 < first.applied && first.applied < total,
            "{first:?}"
        );
        assert_eq!(first.applied, engine.automatic_device_budget());
        // A session and its calls fit beside the weights.
        let few = bits(&engine);
        assert_eq!(engine.memory().pressure.shrinks, 0);
        drop(other);
        let applied = engine.set_device_budget(Request::Automatic).expect("free");
        assert_eq!(applied.applied, total);
        assert!(bits(&engine) == few);
    });
}

#[test]
fn engines_on_automatic_never_exceed_what_is_free() {
    both(|device| {
        let automatic = || {
            let engine = compile(device.clone(), |c| c.allocation(Allocation::Dynamic));
            engine.expect("room for one more")
        };
        let first = automatic();
        let total = first.total_device_budget();
        let (states, wanted) = (first.memory().states_per_session, bits(&first));
        assert_eq!(first.device_budget().expect("a budget").applied, total);
        // Of what weights take, half is left for three engines.
        let other = take_all(&device, RESERVE + 3 * states + total);
        let engines = [first, automatic(), automatic()];
        let budgets = || -> Vec<u64> {
            let budget = |e: &Engine| e.device_budget().expect("a budget").applied;
            engines.iter().map(budget).collect()
        };
        let shares = budgets();
        assert!(
            shares.iter().sum::<u64>() <= 2 * total,
            "{shares:?} of {total}"
        );
        let floor = engines[0].minimum_device_budget();
        assert!(
            shares.iter().all(|s| floor + 10_000 < *s && *s < total),
            "{shares:?} from {floor} to {total}"
        );
        let sessions: Vec<_> = engines
            .iter()
            .map(|e| e.session().expect("states"))
            .collect();
        for (engine, mut session) in engines.iter().zip(sessions) {
            session.prefill(&tokens(9)).expect("a prompt");
            assert_eq!(engine.memory().pressure.shrinks, 0);
        }
        for engine in &engines {
            engine.set_device_budget(Request::Automatic).expect("free");
        }
        let again = budgets();
        let spread = again.iter().max().expect("three") - again.iter().min().expect("three");
        assert!(
            spread <= 16 << 10,
            "shares differ by a tile at most: {again:?}"
        );
        let [first, second, third] = engines;
        drop((second, third, other));
        let applied = first.set_device_budget(Request::Automatic).expect("free");
        assert_eq!(applied.applied, total);
        assert!(bits(&first) == wanted);
    });
}

#[test]
fn an_engine_with_a_budget_of_its_own_finds_room_beside_one_on_automatic() {
    let probe = full(&host(HostMode::Discrete, 64 * MIB), Allocation::Static);
    let memory = probe.memory();
    let each = memory.in_use + memory.states_per_session;
    // Room for one and a half.
    let device = host(HostMode::Discrete, each + each / 2);
    let first = compile(device.clone(), |c| c).expect("all is free");
    let before = first.device_budget().expect("a budget").applied;
    let fixed = Request::Bytes(first.minimum_device_budget() + 10_000);
    let second = compile(device, |c| c.budget(fixed)).expect("the first makes room");
    assert!(first.device_budget().expect("a budget").applied < before);
    assert!(bits(&first) == bits(&second));
}

/// What is logged at the level of warnings and above, while `run` runs on this thread.
fn warnings(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let scope = log.set_default();
    run();
    drop(scope);
    let bytes = lines.0.lock().expect("nobody panicked").clone();
    String::from_utf8(bytes).expect("text")
}

#[test]
fn giving_way_is_logged_with_the_bytes_before_and_after() {
    let device = host(HostMode::Discrete, 64 * MIB);
    let engine = full(&device, Allocation::Dynamic);
    bits(&engine);
    let other = take_all(&device, 1000);
    let log = warnings(|| {
        bits(&engine);
    });
    drop(other);
    let last = engine.memory().pressure.last.expect("it gave way");
    assert!(log.contains("WARN"), "{log}");
    for number in [format!("from={}", last.from), format!("to={}", last.to)] {
        assert!(log.contains(&number), "{number} is not in: {log}");
    }
}

#[test]
fn a_call_that_cannot_be_recorded_is_made_launch_by_launch_until_weights_move() {
    let device = Stingy::new();
    let engine = compile(device.clone(), |c| c.budget(Request::Full)).expect("it compiles");
    let wanted = bits(&engine);
    engine.set_replay(false);
    engine.set_replay(true);
    let replayed = engine.replayed_calls();
    device.set_records(false);
    assert!(bits(&engine) == wanted, "other bits without recordings");
    assert_eq!(engine.replayed_calls(), replayed);
    // It is not tried again for weights where they are.
    device.set_records(true);
    assert!(bits(&engine) == wanted);
    assert_eq!(engine.replayed_calls(), replayed);
    for request in [Request::Minimum, Request::Full] {
        engine.set_device_budget(request).expect("there is memory");
    }
    assert!(bits(&engine) == wanted);
    assert!(engine.replayed_calls() > replayed, "recorded again");
}
