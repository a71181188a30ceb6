//! What asking for a budget means: what is read back, what is clamped, what is refused.

use crate::common::tiny;
use crate::families::tokens;
use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::stream::{self, BudgetError, Why};
use candle_trt::{Compiler, Engine, Error, MemoryReport, Profile, Request, TileTarget, Weights};

pub const MODES: [HostMode; 2] = [HostMode::Unified, HostMode::Discrete];

pub fn compile(mode: HostMode, options: impl FnOnce(Compiler) -> Compiler) -> Engine {
    try_compile(mode, options).expect("it compiles")
}

pub fn try_compile(
    mode: HostMode,
    options: impl FnOnce(Compiler) -> Compiler,
) -> Result<Engine, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny::llama3();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let config = model.config();
    let load = LoadOptions {
        max_positions: Some(64),
    };
    let compiler = Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .device(Host::new(mode))
        .profile(Profile::decoder(64, 16).expect("a profile"))
        .tile_target(TileTarget::Bytes(4 << 10));
    options(compiler).compile(|vb| Llama::load_with(vb, &config, &load))
}

pub fn streaming(mode: HostMode) -> Engine {
    compile(mode, |c| c.weight_streaming(true))
}

pub fn logits(engine: &Engine) -> Vec<f32> {
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(5)).expect("a prompt");
    session.decode(3).expect("a token")
}

pub fn parse(text: &str) -> Request {
    text.parse().expect("a request")
}

/// What holds weights; the high-water mark may have moved.
fn held(engine: &Engine) -> MemoryReport {
    MemoryReport {
        high_water: 0,
        ..engine.memory()
    }
}

#[test]
fn without_streaming_the_total_is_0_and_the_refusal_names_the_option() {
    for mode in MODES {
        let engine = compile(mode, |c| c);
        assert_eq!(engine.total_device_budget(), 0);
        for request in ["full", "min", "0", "auto", "50%", "1"] {
            let error = engine.set_device_budget(parse(request)).expect_err(request);
            assert!(matches!(error, Error::NoStreaming), "{request}: {error}");
            let text = error.to_string();
            assert!(text.contains("weight_streaming(true)"), "{text}");
        }
        let limit = engine.set_device_limit(u64::MAX);
        assert!(matches!(limit, Err(Error::NoStreaming)));
        logits(&engine);
        assert_eq!(engine.traffic().bytes, 0);
    }
}

#[test]
fn a_fresh_engine_is_at_the_automatic_budget() {
    for mode in MODES {
        let engine = streaming(mode);
        let fresh = engine.device_budget().expect("a budget");
        assert_eq!(fresh.requested, Request::Automatic);
        assert!(matches!(fresh.why, Why::Automatic { .. }), "{fresh:?}");
        assert!(fresh.applied > 0 && fresh.applied <= fresh.total);
        assert_eq!(fresh.applied, engine.automatic_device_budget());
        assert_eq!(fresh.total, engine.total_device_budget());
    }
}

#[test]
fn what_was_set_is_read_back_to_the_byte() {
    for mode in MODES {
        let engine = streaming(mode);
        let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
        let expected = logits(&engine);
        assert!(floor < total / 5, "20 % are above the floor");
        let cases = [
            (Request::Bytes(floor), floor),
            (Request::Bytes(floor + 1), floor + 1),
            (parse("20%"), total / 5),
            (parse("50%"), total / 2),
            (parse("70%"), total * 7 / 10),
            (parse("100%"), total),
            (Request::Bytes(total - 1), total - 1),
            (Request::Automatic, engine.automatic_device_budget()),
        ];
        for (request, bytes) in cases {
            let reply = engine.set_device_budget(request).expect("a budget");
            assert_eq!(
                (reply.requested, reply.applied),
                (request, bytes),
                "{mode:?}"
            );
            assert_eq!(engine.device_budget().expect("a budget"), reply);
            assert!(reply.used() <= reply.applied, "{reply:?}");
            assert!(logits(&engine) == expected, "{mode:?} at {request}");
            assert!(
                engine.memory().weights <= reply.applied,
                "{mode:?} {reply:?}"
            );
        }
    }
}

#[test]
fn zero_in_any_form_is_the_minimum_and_the_reply_names_the_floor() {
    for mode in MODES {
        let engine = streaming(mode);
        let floor = engine.minimum_device_budget();
        let expected = logits(&engine);
        for request in ["0", "0%", "0MiB", "min"] {
            engine.set_device_budget(Request::Full).expect("a budget");
            let reply = engine.set_device_budget(parse(request)).expect(request);
            assert_eq!((reply.applied, reply.floor), (floor, floor), "{request}");
            assert_eq!(reply.why, Why::Minimum);
            assert!(logits(&engine) == expected, "{mode:?} at {request}");
        }
    }
}

#[test]
fn more_than_everything_is_clamped_and_said() {
    let engine = streaming(HostMode::Discrete);
    let total = engine.total_device_budget();
    // Above 32 and 53 bits, so that no smaller number is counted with on the way.
    for asked in [total + 1, (1 << 32) + 7, (1 << 53) + 1, u64::MAX] {
        let reply = engine.set_device_budget(Request::Bytes(asked));
        let reply = reply.expect("a budget");
        assert_eq!(
            (reply.applied, reply.requested),
            (total, Request::Bytes(asked))
        );
        assert_eq!(reply.why, Why::ClampedToTotal { asked });
    }
    let reply = engine.set_device_budget(parse("150%")).expect("a budget");
    let asked = total * 3 / 2;
    assert_eq!(
        (reply.applied, reply.why),
        (total, Why::ClampedToTotal { asked })
    );
}

#[test]
fn less_than_the_floor_is_refused_with_its_parts_and_nothing_changes() {
    for mode in MODES {
        let engine = streaming(mode);
        let half = parse("50%");
        let before = engine.set_device_budget(half).expect("a budget");
        let expected = logits(&engine);
        let (memory, traffic) = (held(&engine), engine.traffic());
        let floor = engine.minimum_device_budget();
        for asked in [1, floor / 2, floor - 1] {
            let error = engine.set_device_budget(Request::Bytes(asked));
            let error = error.expect_err("below the floor");
            let Error::Stream(stream::Error::Budget(BudgetError::BelowFloor {
                asked: named,
                limits,
                ..
            })) = &error
            else {
                panic!("{error:?}");
            };
            assert_eq!((*named, limits.floor()), (asked, floor));
            let text = error.to_string();
            let pinned = format!("{} pinned", limits.pinned);
            let ring = format!("{} ring slots of {} bytes", limits.slots, limits.slot_bytes);
            for part in [format!("floor of {floor} bytes"), pinned, ring] {
                assert!(text.contains(&part), "{part}: {text}");
            }
            assert_eq!(engine.device_budget().expect("a budget"), before);
            assert_eq!((held(&engine), engine.traffic()), (memory, traffic));
        }
        assert!(logits(&engine) == expected);
        assert_eq!(engine.traffic().loaded, traffic.loaded, "nothing had gone");
    }
}

#[test]
fn at_the_full_budget_no_copy_is_made() {
    for mode in MODES {
        let engine = streaming(mode);
        for request in ["100%", "full", "1TiB"] {
            engine
                .set_device_budget(Request::Minimum)
                .expect("a budget");
            logits(&engine);
            let reply = engine.set_device_budget(parse(request)).expect("a budget");
            assert_eq!((reply.streamed, reply.ring), (0, 0), "{request}");
            let before = engine.traffic();
            logits(&engine);
            let once = engine.traffic();
            assert_eq!(once.fetches, before.fetches, "{mode:?} {request}");
            assert!(once.loaded > before.loaded, "residents are loaded once");
            logits(&engine);
            assert_eq!(engine.traffic(), once, "{mode:?} {request}");
            let last = engine.last_traffic();
            assert_eq!((last.fetches, last.bytes, last.loaded), (0, 0, 0));
        }
    }
}

#[test]
fn setting_the_budget_in_force_does_no_work() {
    for mode in MODES {
        let engine = streaming(mode);
        let half = engine.set_device_budget(parse("50%")).expect("a budget");
        logits(&engine);
        logits(&engine);
        let before = engine.traffic();
        engine
            .set_device_budget(Request::Bytes(half.applied))
            .expect("a budget");
        assert_eq!(engine.traffic(), before);
        logits(&engine);
        assert_eq!(engine.traffic().loaded, before.loaded, "{mode:?}");
    }
}

#[test]
fn a_limit_given_to_the_compiler_is_the_engines_and_sets_its_budget() {
    let free = streaming(HostMode::Discrete);
    let memory = free.memory();
    let other = memory.activations + memory.constants + memory.states_per_session;
    let wanted = free.total_device_budget() / 3;
    let engine = compile(HostMode::Discrete, |c| {
        c.weight_streaming(true).device_limit(other + wanted)
    });
    assert_eq!(engine.device_limit(), other + wanted);
    assert_eq!(engine.device_budget().expect("a budget").applied, wanted);
    assert!(logits(&engine) == logits(&free));
    assert!(engine.memory().in_use <= other + wanted);
    assert_eq!(engine.automatic_device_budget(), wanted);
}

#[test]
fn a_first_budget_that_fits_the_first_limit_is_what_was_asked_for() {
    let free = streaming(HostMode::Discrete);
    let memory = free.memory();
    let other = memory.activations + memory.constants + memory.states_per_session;
    let (floor, total) = (free.minimum_device_budget(), free.total_device_budget());
    for (text, bytes) in [("min", floor), ("50%", total / 2), ("full", total)] {
        let engine = compile(HostMode::Discrete, |c| {
            let streaming = c.weight_streaming(true).budget(parse(text));
            streaming.device_limit(other + total)
        });
        assert_eq!(engine.device_limit(), other + total, "{text}");
        let applied = engine.device_budget().expect("a budget");
        assert_eq!((applied.applied, applied.requested), (bytes, parse(text)));
        assert!(logits(&engine) == logits(&free));
    }
}

#[test]
fn a_first_budget_that_does_not_fit_the_first_limit_is_refused_with_the_shortfall() {
    let free = streaming(HostMode::Discrete);
    let memory = free.memory();
    let other = memory.activations + memory.constants + memory.states_per_session;
    let total = free.total_device_budget();
    // Without streaming all weights are the budget.
    for (text, streaming) in [("full", true), ("full", false)] {
        let made = try_compile(HostMode::Discrete, |c| {
            let compiler = c.weight_streaming(streaming).budget(parse(text));
            compiler.device_limit(other + total - 1)
        });
        match made.expect_err("a byte is missing") {
            Error::LimitBelowBudget {
                limit,
                budget,
                other: beside,
                short,
            } => assert_eq!(
                (limit, budget, beside, short),
                (other + total - 1, total, other, 1)
            ),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_memory_report_has_the_budget_and_the_limit_in_force() {
    for mode in MODES {
        let engine = streaming(mode);
        let both = || (engine.memory().budget, engine.memory().limit);
        for text in ["min", "50%", "full"] {
            let applied = engine.set_device_budget(parse(text)).expect("a budget");
            assert_eq!(both(), (applied.applied, u64::MAX), "{text}");
        }
        let memory = engine.memory();
        let other = memory.activations + memory.constants + memory.states_per_session;
        let left = memory.total_weights - 1000;
        engine.set_device_limit(other + left).expect("it fits");
        assert_eq!(both(), (left, other + left));
        let fixed = compile(mode, |c| c).memory();
        assert_eq!(fixed.budget, fixed.total_weights);
    }
}

#[test]
fn sizes_and_shares_are_read_exactly_and_junk_is_refused() {
    for (text, bytes) in [
        ("64MiB", 64u64 << 20),
        ("64 MiB", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64_000_000),
        ("16777215TiB", 16_777_215 << 40),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(parse(text), Request::Bytes(bytes));
    }
    assert_eq!(parse("25 %"), parse("25%"));
    assert_eq!(parse("Full"), Request::Full);
    for text in [
        "",
        " ",
        "\t",
        "-5%",
        "+0",
        " auto",
        "full\n",
        "64Mi B",
        "%",
        "MiB",
        "-0",
        "0x10",
        "1_000",
        "1,5GiB",
        "NaN%",
        "inf",
        "1e3",
        "5%MiB",
        "MiB64",
        "64MiB64",
        "18446744073709551616",
        "16777216TiB",
        "99999999999999999999%",
        "18446744073709552%",
    ] {
        let error = text.parse::<Request>().expect_err(text);
        assert_eq!(error.text, text);
        assert!(!error.reason.is_empty());
    }
}
