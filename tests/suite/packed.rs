//! Packed weights: the same bits as plain ones at every budget, in fewer bytes.

use crate::common::random::{self, Random, Stored};
use candle_trt::device::{Device, Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::stream::PackOptions;
use candle_trt::{
    Compiler, Costs, DeviceBudget, Engine, Priority, Profile, Request, Store, TileTarget, Weights,
};
use std::path::Path;
use std::sync::{Arc, OnceLock};

const MODES: [HostMode; 2] = [HostMode::Unified, HostMode::Discrete];
const CONTEXT: usize = 64;

/// A checkpoint in bf16, 5 MB of it in matrices that are worth packing.
fn model() -> &'static (tempfile::TempDir, Random) {
    static MODEL: OnceLock<(tempfile::TempDir, Random)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let model = Random {
            name: "packed",
            json: random::llama(256, 1024, 3, (4, 2), 512, false),
            stored: Stored::Bf16,
            shards: 1,
        };
        model.write(dir.path()).expect("a checkpoint");
        (dir, model)
    })
}

fn weights() -> Arc<Weights> {
    Arc::new(Weights::open(model().0.path()).expect("it opens"))
}

fn compile(
    mode: HostMode,
    weights: Arc<Weights>,
    set: impl FnOnce(Compiler) -> Compiler,
) -> Engine {
    compile_on(Arc::new(Host::new(mode)), weights, set)
}

fn compile_on(
    device: Arc<dyn Device>,
    weights: Arc<Weights>,
    set: impl FnOnce(Compiler) -> Compiler,
) -> Engine {
    let config = model().1.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    let compiler = Compiler::new(weights)
        .shared_device(device)
        .profile(Profile::decoder(CONTEXT, 32).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(64 << 10));
    let compiled = set(compiler).compile(|vb| Llama::load_with(vb, &config, &options));
    compiled.expect("it compiles")
}

fn packed(store: Store) -> Arc<Weights> {
    let packed = weights().pack(&PackOptions::new(store));
    packed.expect("they are packed")
}

/// A prompt of 20 tokens and some single ones, in which `between` is done before each call.
fn bits(engine: &Engine, mut between: impl FnMut(usize)) -> Vec<Vec<u32>> {
    let mut session = engine.session().expect("a session");
    let tokens: Vec<u32> = (0..32).map(|i| i * 37 % 500).collect();
    let calls = std::iter::once(&tokens[..20]).chain(tokens[20..].chunks(1));
    let mut run = |(i, call): (usize, &[u32])| {
        between(i);
        let logits = session.prefill(call).expect("tokens");
        logits.iter().map(|v| v.to_bits()).collect()
    };
    calls.enumerate().map(&mut run).collect()
}

#[test]
fn packed_weights_give_the_bits_of_plain_ones_at_every_budget() {
    for mode in MODES {
        let plain = compile(mode, weights(), |c| c);
        let expected = bits(&plain, |_| {});
        let engine = compile(mode, packed(Store::Memory), |c| c);
        assert!(engine.total_device_budget() > plain.total_device_budget());
        let shares = ["full", "95%", "80%", "72%", "60%", "25%", "min"];
        let mut streamed = 0;
        for share in shares {
            let applied = engine.set_device_budget(share.parse().expect("a share"));
            let applied = applied.expect("it is met");
            assert!(bits(&engine, |_| {}) == expected, "{mode:?} at {share}");
            let traffic = engine.last_traffic().bytes;
            assert_eq!(traffic, applied.streamed, "{mode:?} at {share}");
            assert!(traffic >= streamed, "{mode:?} at {share}: {traffic}");
            streamed = traffic;
        }
    }
}

#[test]
fn a_budget_of_72_percent_streams_nothing_and_one_of_25_the_rest_of_the_packed_bytes() {
    let engine = compile(HostMode::Discrete, packed(Store::Memory), |c| c);
    let set = |share: &str| {
        let applied = engine.set_device_budget(share.parse().expect("a share"));
        applied.expect("it is met")
    };
    let applied = set("72%");
    assert_eq!((applied.streamed, applied.ring), (0, 0), "{applied:?}");
    assert!(applied.packed > 0, "{applied:?}");
    let report = engine.report().packed.clone().expect("weights are packed");
    assert!(
        report.packed_bytes * 100 < report.plain_bytes * 72,
        "{report}"
    );
    let applied = set("25%");
    let most = report.packed_bytes + applied.pinned + applied.ring - applied.applied;
    // A tile may not fit into what is left.
    assert!(
        applied.streamed <= most + (128 << 10),
        "{applied:?}, {most}"
    );
}

#[test]
fn a_device_without_memory_for_plain_rows_has_them_packed_and_streams_what_does_not_fit() {
    let plain = compile(HostMode::Discrete, weights(), |c| c);
    let expected = bits(&plain, |_| {});
    let total = plain.total_device_budget();
    for share in [90, 75, 50] {
        let room = total * share / 100 + (4 << 20);
        let device: Arc<dyn Device> = Arc::new(Host::new(HostMode::Discrete).with_memory(room));
        let engine = compile_on(device.clone(), packed(Store::Memory), |c| c);
        assert!(bits(&engine, |_| {}) == expected, "{share}");
        let free = device.free_memory().expect("it tells");
        let other = device.allocate((free - 1000) as usize).expect("it is free");
        // The next session's states have no room but that of weights.
        assert!(bits(&engine, |_| {}) == expected, "{share}");
        assert!(engine.memory().pressure.shrinks > 0, "{share}");
        drop(other);
        engine.regrow().expect("memory is back");
        assert!(bits(&engine, |_| {}) == expected, "{share}");
    }
}

#[test]
fn engines_with_packed_and_with_plain_weights_share_a_budget_to_the_byte() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let least = |c: Compiler| c.budget(Request::Minimum);
    let engines = [packed(Store::Memory), weights()]
        .map(|weights| compile_on(device.clone(), weights, least));
    let budget = DeviceBudget::new(device.clone(), Request::Minimum);
    for engine in &engines {
        budget.join(engine, Priority::NORMAL).expect("room");
    }
    let expected = bits(&engines[1], |_| {});
    let floor: u64 = engines.iter().map(Engine::minimum_device_budget).sum();
    let total: u64 = engines.iter().map(Engine::total_device_budget).sum();
    for bytes in (0..=10).map(|i| floor + (total - floor) * i / 10) {
        let plan = budget.set(Request::Bytes(bytes)).expect("above the floors");
        assert_eq!((plan.spent, plan.remainder), (bytes, 0));
        for engine in &engines {
            assert!(bits(engine, |_| {}) == expected, "{bytes}");
        }
    }
}

#[test]
fn budgets_change_between_two_tokens() {
    for mode in MODES {
        let expected = bits(&compile(mode, weights(), |c| c), |_| {});
        let engine = compile(mode, packed(Store::Memory), |c| c);
        let shares = ["full", "25%", "85%", "min", "70%", "full", "90%", "50%"];
        let found = bits(&engine, |call| {
            let share = shares[call % shares.len()].parse().expect("a share");
            engine.set_device_budget(share).expect("it is met");
        });
        assert!(found == expected, "{mode:?}");
    }
}

#[test]
fn a_saved_engine_of_plain_weights_is_loaded_with_packed_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("engine");
    let plain = compile(HostMode::Discrete, weights(), |c| c);
    let expected = bits(&plain, |_| {});
    plain.save(&file).expect("it is saved");
    let load = |weights: Arc<Weights>, file: &Path| {
        let compiler = Compiler::new(weights).device(Host::new(HostMode::Discrete));
        compiler.budget(Request::Minimum).load(file)
    };
    let store = Store::Folder(dir.path().to_path_buf());
    let engine = load(packed(store), &file).expect("it loads");
    assert!(bits(&engine, |_| {}) == expected);
    assert!(engine.device_budget().expect("a budget").streamed > 0);
    engine.save(&file).expect("it is saved");
    let engine = load(weights(), &file).expect("it loads");
    assert!(bits(&engine, |_| {}) == expected);
}

#[test]
fn weights_are_in_the_form_that_is_said_to_be_faster() {
    let engine = compile(HostMode::Discrete, packed(Store::Memory), |c| c);
    let expected = bits(&engine, |_| {});
    let plain = engine.total_device_budget();
    assert_eq!(engine.device_budget().expect("a budget").packed, 0);
    let costs = |packed| Costs {
        packed,
        ..crate::predict::COSTS
    };
    let half = crate::predict::COSTS.settled / 2.0;
    engine.set_costs(&[], costs(half)).expect("costs");
    let applied = engine.device_budget().expect("a budget");
    assert!(engine.total_device_budget() < plain, "{applied:?}");
    assert_eq!(applied.applied, engine.total_device_budget());
    assert_eq!(applied.packed + applied.pinned, applied.applied);
    assert!(bits(&engine, |_| {}) == expected);
    let predicted = engine.predict(Request::Full).expect("a time");
    assert!(predicted.seconds < half * 1.01, "{predicted:?}");
    engine.set_costs(&[], costs(half * 4.0)).expect("costs");
    let still = engine
        .predict(Request::Bytes(applied.applied))
        .expect("a time");
    assert!(still.seconds > half * 3.9, "{still:?}");
    assert_eq!(engine.total_device_budget(), plain);
    let applied = engine.set_device_budget(Request::Full).expect("it is met");
    assert_eq!(applied.packed, 0);
    assert!(bits(&engine, |_| {}) == expected);
}

#[test]
fn calibrating_times_both_forms_and_restores_the_budget() {
    let engine = compile(HostMode::Discrete, packed(Store::Memory), |c| {
        c.budget(Request::Minimum)
    });
    let before = engine.device_budget().expect("a budget");
    let costs = engine.calibrate(&[]).expect("costs");
    assert!(costs.plain_is_faster().is_some(), "{costs:?}");
    assert_eq!(
        engine.device_budget().expect("a budget").applied,
        before.applied
    );
    let faster = costs.plain_is_faster() == Some(true);
    let full = engine.set_device_budget(Request::Full).expect("it is met");
    assert_eq!(full.packed == 0, faster, "{costs:?} {full:?}");
    let mut last = f64::MAX;
    for percent in (10..=100).step_by(10) {
        let request = format!("{percent}%").parse().expect("a share");
        let Ok(predicted) = engine.predict(request) else {
            continue;
        };
        assert!(
            predicted.seconds <= last,
            "{percent}%: {predicted:?} after {last}"
        );
        last = predicted.seconds;
    }
}
