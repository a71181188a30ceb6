//! The executor on the host device, unified and discrete. The "kernel" of these tests copies
//! the rows it is given, so what a pass computes is the weights themselves.

#[path = "support/bench.rs"]
mod bench;
mod support;

use bench::{Bench, Failure, STREAMED, both, budgets};
use trt_device::{HostMode, Work};
use trt_kernel::Role;
use trt_stream::{Error, ProgramId, Request, Streamer, WeightId};

#[test]
fn the_bits_are_the_same_at_every_budget() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        for request in budgets(&streamer, 12) {
            let applied = streamer.set_budget(request, 0).unwrap();
            assert!(applied.used() <= applied.applied);
            for _ in 0..3 {
                bench.pass(&mut streamer, 0, &STREAMED);
            }
            assert_eq!(streamer.last_pass().bytes, applied.streamed);
        }
    });
}

#[test]
fn the_budget_may_change_at_every_pass() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Full);
        let all = budgets(&streamer, 10);
        for i in 0..40 {
            streamer.set_budget(all[i * 7 % all.len()], 0).unwrap();
            bench.pass(&mut streamer, 0, &STREAMED);
        }
    });
}

#[test]
fn the_pool_never_holds_more_than_the_budget() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        for request in budgets(&streamer, 9).into_iter().rev() {
            let applied = streamer.set_budget(request, 0).unwrap();
            bench.pool.reset_high_water();
            bench.pass(&mut streamer, 0, &STREAMED);
            bench.pass(&mut streamer, 0, &STREAMED);
            assert_eq!(bench.pool.in_use(), applied.used());
            assert!(bench.pool.high_water() <= applied.applied);
        }
    });
}

#[test]
fn a_pool_of_the_budget_is_enough_for_any_change_within_it() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let bench = Bench::new(mode);
        let total = bench.streamer(Request::Minimum).total();
        let bench = Bench::with_limit(mode, total);
        let mut streamer = bench.streamer(Request::Minimum);
        let all = budgets(&streamer, 10);
        for i in 0..20 {
            streamer.set_budget(all[i * 7 % all.len()], 0).unwrap();
            bench.pass(&mut streamer, 0, &STREAMED);
        }
        streamer.set_budget(Request::Full, 0).unwrap();
        assert_eq!(bench.pool.in_use(), total);
    }
}

#[test]
fn at_full_nothing_is_fetched_and_everything_loads_once() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Full);
        let bytes = streamer.layout().tiling().total();
        bench.pass(&mut streamer, 0, &STREAMED);
        assert_eq!(streamer.last_pass().loaded, bytes);
        bench.pass(&mut streamer, 0, &STREAMED);
        assert_eq!(streamer.last_pass(), Default::default());
        assert_eq!(streamer.traffic().bytes, 0);
        assert_eq!(bench.pool.in_use(), streamer.total());
    });
}

#[test]
fn a_budget_change_moves_only_the_difference() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let all = budgets(&streamer, 4);
        let small = streamer.set_budget(all[2], 0).unwrap();
        bench.pass(&mut streamer, 0, &STREAMED);
        let large = streamer.set_budget(all[3], 0).unwrap();
        bench.pass(&mut streamer, 0, &STREAMED);
        assert_eq!(streamer.last_pass().loaded, large.resident - small.resident);
        streamer.set_budget(all[2], 0).unwrap();
        bench.pass(&mut streamer, 0, &STREAMED);
        assert_eq!(streamer.last_pass().loaded, 0);
    });
}

#[test]
fn setting_the_same_budget_again_keeps_what_was_fetched() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        bench.pass(&mut streamer, 0, &STREAMED);
        streamer.set_budget(Request::Minimum, 0).unwrap();
        bench.pass(&mut streamer, 0, &STREAMED);
        let applied = streamer.applied().unwrap();
        assert_eq!(streamer.last_pass().bytes, applied.streamed);
    });
}

#[test]
fn a_refused_budget_changes_nothing() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let before = streamer.applied().unwrap();
        let error = streamer.set_budget(Request::Bytes(1), 0).unwrap_err();
        assert!(matches!(error, Error::Budget(_)), "{error}");
        bench.pool.set_limit(bench.pool.in_use() + 100).unwrap();
        let error = streamer.set_budget(Request::Full, 0).unwrap_err();
        assert!(matches!(error, Error::Pool(_)), "{error}");
        assert_eq!(streamer.applied().unwrap(), before);
        assert_eq!(bench.pool.in_use(), before.used());
        bench.pass(&mut streamer, 0, &STREAMED);
    });
}

#[test]
fn a_weight_used_twice_is_there_twice() {
    both(|bench| {
        let uses = ["head", "up", "down", "head", "head"];
        let mut streamer = Streamer::new(bench.config(&[&uses], Request::Minimum)).unwrap();
        for request in budgets(&streamer, 6) {
            streamer.set_budget(request, 0).unwrap();
            bench.pass(&mut streamer, 0, &uses);
            bench.pass(&mut streamer, 0, &uses);
        }
    });
}

#[test]
fn programs_with_equal_uses_share_their_prefetching() {
    both(|bench| {
        let programs: [&[&str]; 3] = [&STREAMED, &["down", "head"], &STREAMED];
        let mut streamer = Streamer::new(bench.config(&programs, Request::Minimum)).unwrap();
        bench.pass(&mut streamer, 0, programs[0]);
        let streamed = streamer.applied().unwrap().streamed;
        let ring = streamer.traffic().bytes - streamed;
        bench.pass(&mut streamer, 2, programs[2]);
        assert_eq!(streamer.traffic().bytes, 2 * streamed + ring);
        bench.pass(&mut streamer, 1, programs[1]);
        bench.pass(&mut streamer, 0, programs[0]);
        assert!(
            streamer.last_pass().bytes > streamed,
            "the ring started over"
        );
    });
}

#[test]
fn programs_over_few_weights_work_at_every_budget() {
    both(|bench| {
        let programs: [&[&str]; 3] = [&STREAMED, &["conv"], &[]];
        let mut streamer = Streamer::new(bench.config(&programs, Request::Minimum)).unwrap();
        for request in budgets(&streamer, 5) {
            streamer.set_budget(request, 0).unwrap();
            for program in [1, 1, 0, 2, 1, 0] {
                bench.pass(&mut streamer, program, programs[program as usize]);
            }
        }
    });
}

#[test]
fn a_pass_that_fails_midway_leaves_the_next_one_right() {
    both(|bench| {
        for stop_at in 0..8 {
            let mut streamer = bench.streamer(Request::Minimum);
            bench.pass(&mut streamer, 0, &STREAMED);
            let mut pass = streamer.begin(ProgramId(0)).unwrap();
            let stopped = bench.uses(&mut pass, Some(stop_at));
            assert!(matches!(stopped, Err(Failure::Asked)));
            drop(pass);
            bench.pass(&mut streamer, 0, &STREAMED);
            bench.pass(&mut streamer, 0, &STREAMED);
        }
    });
}

#[test]
fn after_an_error_on_the_compute_stream_a_reset_recovers() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Percent(trt_stream::Percent::from_millionths(
            600_000,
        )));
        bench.pass(&mut streamer, 0, &STREAMED);
        // A launch that reads a table row which does not exist fails when it runs.
        let failing = support::failing_kernel();
        let executable = bench.device.load(&failing).unwrap();
        let scratch = bench.device.allocate(64).unwrap();
        let work = Work::Launch {
            executable,
            env: Default::default(),
            args: vec![scratch.whole(); failing.args().len()],
            tiles: vec![],
            scratch: None,
        };
        let mut pass = streamer.begin(ProgramId(0)).unwrap();
        bench.device.submit(bench.compute, work).unwrap();
        bench.uses(&mut pass, None).unwrap();
        pass.finish().unwrap();
        assert!(!streamer.reset().is_empty());
        bench.pass(&mut streamer, 0, &STREAMED);
        bench.pass(&mut streamer, 0, &STREAMED);
    });
}

#[test]
fn too_many_or_too_few_uses_are_errors() {
    let bench = Bench::new(HostMode::Unified);
    let mut streamer = bench.streamer(Request::Minimum);
    let mut pass = streamer.begin(ProgramId(0)).unwrap();
    bench.uses(&mut pass, None).unwrap();
    let more = pass.next_use(|_| Ok::<(), Error>(())).unwrap_err();
    assert!(matches!(more, Error::TooManyUses { uses: 4, .. }), "{more}");
    drop(pass);
    let mut pass = streamer.begin(ProgramId(0)).unwrap();
    pass.next_use(|_| Ok::<(), Error>(())).unwrap();
    let early = pass.finish().unwrap_err();
    assert!(
        matches!(
            early,
            Error::Unfinished {
                done: 1,
                uses: 4,
                ..
            }
        ),
        "{early}"
    );
    assert!(matches!(
        streamer.begin(ProgramId(7)).unwrap_err(),
        Error::UnknownProgram { count: 1, .. }
    ));
}

#[test]
fn pinned_and_mapped_weights_are_where_they_should_be() {
    both(|bench| {
        let streamer = bench.streamer(Request::Minimum);
        for (name, slice) in [
            ("norm", streamer.pinned(bench.id("norm")).unwrap()),
            ("table", streamer.mapped(bench.id("table")).unwrap()),
        ] {
            let mut found = vec![0; slice.len()];
            bench
                .device
                .read(bench.compute, &slice, &mut found)
                .unwrap();
            assert_eq!(found, bench.bytes(name), "{name}");
        }
        let error = streamer.pinned(bench.id("table")).unwrap_err();
        assert_eq!(error.to_string(), "weight 'table' is not pinned");
        let error = streamer.mapped(WeightId(99)).unwrap_err();
        assert!(matches!(error, Error::UnknownWeight { count: 6, .. }));
    });
}

#[test]
fn a_weight_cannot_be_pinned_and_streamed() {
    let bench = Bench::new(HostMode::Unified);
    let error = Streamer::new(bench.config(&[&["norm", "up"]], Request::Full)).unwrap_err();
    assert!(matches!(error, Error::TwoRoles { name } if name == "norm"));
}

#[test]
fn a_tied_table_is_mapped_and_streamed() {
    both(|bench| {
        let mut config = bench.config(&[&STREAMED], Request::Minimum);
        let head = bench.id("head").0 as usize;
        config.weights[head].roles.add(Role::Table);
        let mut streamer = Streamer::new(config).unwrap();
        assert_eq!(
            streamer.mapped(bench.id("head")).unwrap().len(),
            700 * 32 * 4
        );
        bench.pass(&mut streamer, 0, &STREAMED);
    });
}

#[test]
fn everything_is_given_back_at_the_end() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Full);
        bench.pass(&mut streamer, 0, &STREAMED);
        drop(streamer);
        bench.device.synchronize(bench.compute).unwrap();
        assert_eq!(bench.pool.in_use(), 0);
    });
}

#[test]
fn pinned_weights_whose_load_failed_are_loaded_again_when_the_file_is_whole() {
    use std::os::unix::fs::FileExt;
    both(|bench| {
        let path = &bench.weights.files()[0].path;
        let whole = std::fs::read(path).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(100).unwrap();
        let mut streamer = bench.streamer(Request::Minimum);
        let error = streamer.begin(ProgramId(0)).unwrap_err().to_string();
        let parts = ["w.safetensors".into(), whole.len().to_string()];
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
        // That of the load, which nobody waited for.
        assert!(!streamer.reset().is_empty());
        file.write_all_at(&whole, 0).unwrap();
        bench.pass(&mut streamer, 0, &STREAMED);
        let pinned = streamer.pinned(bench.id("norm")).unwrap();
        let mut found = vec![0; pinned.len()];
        let compute = bench.compute;
        bench.device.read(compute, &pinned, &mut found).unwrap();
        assert_eq!(found, bench.bytes("norm"));
    });
}
