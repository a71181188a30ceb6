//! The executor on the host device, unified and discrete. The "kernel" of these tests copies
//! the rows it is given, so what a pass computes is the weights themselves.

mod support;

use std::sync::Arc;
use support::write_f32;
use tempfile::TempDir;
use trt_alloc::Pool;
use trt_device::{Device, Host, HostMode, Memory, Stream, Work};
use trt_stream::{
    Config, Error, Pass, ProgramId, Request, Streamer, TileTarget, WeightId, Weights,
};

const TENSORS: [(&str, &[usize]); 6] = [
    ("norm", &[96]),
    ("up", &[320, 48]),
    ("down", &[130, 96]),
    ("conv", &[40, 3, 25]),
    ("head", &[700, 32]),
    ("table", &[500, 16]),
];
const STREAMED: [&str; 4] = ["up", "down", "conv", "head"];

struct Bench {
    _dir: TempDir,
    device: Arc<dyn Device>,
    pool: Pool,
    weights: Arc<Weights>,
    compute: Stream,
    out: Memory,
}

/// What went wrong in a pass of these tests.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stream(#[from] Error),
    #[error("asked to stop")]
    Asked,
}

impl Bench {
    fn new(mode: HostMode) -> Bench {
        Bench::with_limit(mode, u64::MAX)
    }

    fn with_limit(mode: HostMode, limit: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = write_f32(&dir.path().join("w.safetensors"), &TENSORS);
        let weights = Arc::new(Weights::open(path).unwrap());
        let device: Arc<dyn Device> = Arc::new(Host::new(mode));
        Bench {
            _dir: dir,
            compute: device.stream("compute").unwrap(),
            out: device.allocate(2 * weights.total_bytes() as usize).unwrap(),
            pool: Pool::new(device.clone(), limit),
            device,
            weights,
        }
    }

    fn id(&self, name: &str) -> WeightId {
        self.weights.find(name).unwrap()
    }

    fn ids(&self, names: &[&str]) -> Vec<WeightId> {
        names.iter().map(|n| self.id(n)).collect()
    }

    fn config(&self, programs: &[&[&str]], request: Request) -> Config {
        Config {
            pool: self.pool.clone(),
            weights: self.weights.clone(),
            compute: self.compute,
            programs: programs.iter().map(|p| self.ids(p)).collect(),
            whole: self.ids(&["conv"]),
            pinned: self.ids(&["norm"]),
            mapped: self.ids(&["table"]),
            tile_target: TileTarget::Bytes(12 << 10),
            request,
            free: 0,
        }
    }

    fn streamer(&self, request: Request) -> Streamer {
        Streamer::new(self.config(&[&STREAMED], request)).unwrap()
    }

    /// Copies every row that the pass launches to its place in a pass's output.
    fn uses(&self, pass: &mut Pass<'_>, stop_at: Option<usize>) -> Result<(), Failure> {
        let mut at = 0;
        let mut launches = 0;
        while let Some(weight) = pass.upcoming() {
            let info = self.weights.get(weight).unwrap();
            let row = info.bytes() / info.rows();
            let mut next_row = 0;
            pass.next_use(|tiles| {
                if Some(launches) == stop_at {
                    return Err(Failure::Asked);
                }
                launches += 1;
                assert_eq!(tiles.rows.start, next_row, "rows come in order");
                for (rows, slice) in tiles.each() {
                    assert_eq!(slice.len(), rows.len() * row);
                    next_row = rows.end;
                    let dst = self.out.whole();
                    let dst = dst.slice(at + rows.start * row..at + rows.end * row);
                    let work = Work::Copy {
                        dst: dst.unwrap(),
                        src: slice.clone(),
                    };
                    self.device.submit(self.compute, work).unwrap();
                }
                Ok(())
            })?;
            assert_eq!(next_row, info.rows(), "every row was launched");
            at += info.bytes();
        }
        Ok(())
    }

    /// A pass must compute exactly the weights.
    fn pass(&self, streamer: &mut Streamer, program: u32, names: &[&str]) {
        let mut pass = streamer.begin(ProgramId(program)).unwrap();
        self.uses(&mut pass, None).unwrap();
        pass.finish().unwrap();
        let expected: Vec<u8> = names
            .iter()
            .flat_map(|n| self.weights.bytes(self.id(n)).unwrap().to_vec())
            .collect();
        let mut found = vec![0; expected.len()];
        let out = self.out.whole().slice(0..found.len()).unwrap();
        self.device.read(self.compute, &out, &mut found).unwrap();
        assert!(found == expected, "a pass computed other bits");
        // What an earlier pass left must not pass for this one's result.
        let blank = Work::Write {
            dst: out,
            bytes: vec![0xAA; found.len()],
        };
        self.device.submit(self.compute, blank).unwrap();
    }
}

fn both(test: impl Fn(Bench)) {
    test(Bench::new(HostMode::Unified));
    test(Bench::new(HostMode::Discrete));
}

/// Budgets from the floor to the total.
fn budgets(streamer: &Streamer, count: u64) -> Vec<Request> {
    let (floor, total) = (streamer.floor(), streamer.total());
    let at = |i| Request::Bytes(floor + (total - floor) * i / count);
    (0..=count).map(at).collect()
}

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
            assert_eq!(
                found,
                bench.weights.bytes(bench.id(name)).unwrap(),
                "{name}"
            );
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
        config.mapped = bench.ids(&["head"]);
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
