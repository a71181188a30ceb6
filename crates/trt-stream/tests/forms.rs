//! Weights in two forms on the host device, unified and discrete: a tied table that is gathered plain
//! and multiplied in packed blocks, experts plain and packed, and plain weights among them. The
//! "kernel" of these tests copies the rows that it is given.

#[path = "support/forms_bench.rs"]
mod bench;
#[path = "support/copying.rs"]
mod copying;
#[path = "support/halved.rs"]
mod halved;
#[path = "support/forms.rs"]
mod made;
mod support;
#[path = "support/tied.rs"]
#[allow(dead_code, reason = "devices that sum in order are tested elsewhere")]
mod tied;
#[path = "forms/turning.rs"]
mod turning;

use bench::{Bench, HEAD, MADE, both, budget, program};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trt_device::{Host, HostMode, Work};
use trt_kernel::Role;
use trt_stream::{
    Arrive, Case, Config, Error, Packed, ProgramId, Request, STAGES, SheetError, Streamer, Unpack,
    Use, WeightId, simulate,
};

#[test]
fn a_pass_hands_out_the_held_form_at_every_budget() {
    both(|bench| {
        let mut streamer = bench.streamer();
        for part in 0..=8 {
            let request = budget(&streamer, part, 8);
            bench.pool.reset_high_water();
            let applied = streamer.set_budget(request, 0).unwrap();
            for _ in 0..3 {
                bench.pass(&mut streamer, 0, &program());
            }
            assert!(applied.used() <= applied.applied);
            assert_eq!(bench.pool.in_use(), applied.used());
            assert!(bench.pool.high_water() <= applied.applied);
            assert_eq!(streamer.last_pass().bytes, applied.streamed);
        }
    });
}

#[test]
fn products_and_gathers_read_each_its_form_at_every_budget() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let device = Arc::new(Host::new(mode));
        tied::a_table_in_two_forms_is_right_at_every_budget(device, tied::Sums::Close);
    }
}

#[test]
fn what_is_planned_is_proven_and_is_what_crosses_the_link() {
    both(|bench| {
        let mut streamer = bench.streamer();
        for part in [0, 1, 2] {
            let request = budget(&streamer, part, 2);
            let applied = streamer.set_budget(request, 0).unwrap();
            let uses = program();
            bench.pass(&mut streamer, 0, &uses);
            bench.pass(&mut streamer, 0, &uses);
            let layout = streamer.layout();
            let case = Case {
                tiling: layout.tiling(),
                uses: &uses,
                together: &[],
                pinned: layout.limits().pinned,
                split: &layout.split(applied.applied),
                cycle: streamer.cycle(ProgramId(0)).unwrap(),
                budget: applied.applied,
            };
            let account = simulate(&case, 3).unwrap();
            assert_eq!(account.streamed, streamer.last_pass().bytes);
            assert_eq!(account.peak, applied.used());
        }
    });
}

#[test]
fn loading_everything_brings_less_than_it_holds() {
    both(|bench| {
        let mut streamer = bench.streamer();
        streamer.set_budget(Request::Full, 0).unwrap();
        bench.pass(&mut streamer, 0, &program());
        let used = program();
        let tiling = streamer.layout().tiling();
        // Experts that no program uses are resident too, and come when one does.
        let mut tiles: Vec<_> = used.iter().flat_map(|u| tiling.of(*u)).collect();
        tiles.sort();
        tiles.dedup();
        let stored: u64 = tiles.iter().map(|t| tiling.tile(*t).stored_bytes()).sum();
        let held: u64 = tiles.iter().map(|t| tiling.tile(*t).held_bytes()).sum();
        assert_eq!(streamer.last_pass().loaded, stored);
        assert!(stored < held, "{stored} of {held}");
        assert_eq!(streamer.traffic().bytes, 0);
    });
}

#[test]
fn tiles_of_equal_rows_store_different_numbers_of_bytes() {
    let bench = Bench::new(HostMode::Discrete);
    let streamer = bench.streamer();
    let tiling = streamer.layout().tiling();
    let tiles: Vec<_> = tiling.of(HEAD.into()).map(|t| tiling.tile(t)).collect();
    let equal = |t: &&&trt_stream::Tile| t.held == tiles[0].held;
    let mut stored: Vec<u64> = tiles
        .iter()
        .filter(equal)
        .map(|t| t.stored_bytes())
        .collect();
    let count = stored.len();
    stored.sort_unstable();
    stored.dedup();
    assert!(stored.len() > count / 2 && count > 4, "{stored:?}");
    let rows = tiles.iter().map(|t| t.rows.len() * 102);
    assert!(rows.eq(tiles.iter().map(|t| t.held)));
}

#[test]
fn in_place_only_what_is_unpacked_has_memory_of_its_own() {
    both(|bench| {
        let streamer = bench.streamer();
        let layout = streamer.layout();
        let (tiling, slot) = (layout.tiling(), layout.tiling().slot());
        let arrives = |weight| {
            let first = tiling.of(WeightId(weight).into()).next().unwrap();
            tiling.tile(first).arrive
        };
        let largest = |kind: fn(Arrive) -> bool| {
            let tiles = tiling.ids().map(|t| tiling.tile(t));
            let tiles = tiles.filter(|t| kind(t.arrive));
            tiles.map(|t| t.held_bytes()).max().unwrap_or(0)
        };
        assert_eq!(arrives(1), Arrive::Unpack);
        match arrives(0) {
            Arrive::Populate => assert!(slot.pages > 0 && slot.own > 0),
            Arrive::Upload => assert_eq!(slot.pages, 0),
            Arrive::Unpack => panic!("it is plain"),
        }
        assert_eq!(slot.pages, largest(|a| a == Arrive::Populate));
        assert_eq!(slot.own, largest(|a| a != Arrive::Populate));
        let limits = layout.limits();
        assert_eq!(limits.staging, u64::from(STAGES) * tiling.stage());
        assert_eq!(
            limits.floor(),
            limits.pinned + limits.staging + 2 * slot.total()
        );
    });
}

#[test]
fn the_budget_and_the_program_may_change_at_every_pass() {
    both(|bench| {
        // A ring that starts over must not overtake what is still unpacked into it.
        let lists = [
            program(),
            vec![HEAD.into()],
            vec![WeightId(0).into(), WeightId(2).into()],
        ];
        let mut streamer = Streamer::new(bench.config(lists.to_vec())).unwrap();
        for i in 0..60 {
            let request = budget(&streamer, i * 7 % 11, 10.max(i * 7 % 11));
            if i % 3 != 1 {
                streamer.set_budget(request, 0).unwrap();
            }
            let which = (i * 5 % 3) as usize;
            bench.pass(&mut streamer, which as u32, &lists[which]);
        }
    });
}

#[test]
fn a_pool_of_the_larger_budget_is_enough_for_any_change() {
    both(|bench| {
        let mut streamer = bench.streamer();
        let (floor, total) = (streamer.floor(), streamer.total());
        // What is about to go must go before something else takes its place.
        let ends = [floor, total, total - 1, total, floor + 1, total - 1, floor];
        let between = (0..30).map(|i| floor + (total - floor) * (i * 7 % 10) / 9);
        let mut before = floor;
        for bytes in ends.into_iter().chain(between) {
            bench.pool.set_limit(bytes.max(before)).unwrap();
            streamer.set_budget(Request::Bytes(bytes), 0).unwrap();
            bench.pool.set_limit(bytes).unwrap();
            bench.pass(&mut streamer, 0, &program());
            before = bytes;
        }
    });
}

#[test]
fn a_tied_table_is_gathered_plain_and_multiplied_in_blocks() {
    both(|bench| {
        let mut streamer = bench.streamer();
        let table = streamer.mapped(HEAD).unwrap();
        let mut found = vec![0; table.len()];
        bench
            .device
            .read(bench.compute, &table, &mut found)
            .unwrap();
        let values = MADE[1].values();
        let plain = values.iter().flat_map(|v| v.to_le_bytes());
        assert!(found.into_iter().eq(plain));
        bench.pass(&mut streamer, 0, &program());
    });
}

/// Unpacks as the toy does, but when told to fail: at once, or only when its works are done.
#[derive(Debug, Default)]
struct Failing {
    at_once: AtomicBool,
    later: AtomicBool,
}

impl Unpack for Failing {
    fn works(&self, packed: &Packed<'_>) -> Result<Vec<Work>, Error> {
        if self.at_once.swap(false, Ordering::SeqCst) {
            return Err(Error::Starved);
        }
        let mut works = made::Zeros.works(packed)?;
        if self.later.swap(false, Ordering::SeqCst) {
            // Lengths that differ: refused by the stream that unpacks.
            works.insert(
                0,
                Work::Copy {
                    dst: packed.held.clone(),
                    src: packed.held.slice(0..1)?,
                },
            );
        }
        Ok(works)
    }
}

#[test]
fn after_an_error_of_unpacking_a_reset_recovers() {
    both(|mut bench| {
        let failing = Arc::new(Failing::default());
        for weight in &mut bench.weights {
            if let Some(form) = &mut weight.second {
                form.unpack = Some(failing.clone());
            }
        }
        let mut streamer = bench.streamer();
        let half = budget(&streamer, 1, 2);
        streamer.set_budget(half, 0).unwrap();
        bench.pass(&mut streamer, 0, &program());
        failing.at_once.store(true, Ordering::SeqCst);
        assert!(bench.copy(&mut streamer, 0).is_err());
        streamer.reset();
        bench.pass(&mut streamer, 0, &program());
        failing.later.store(true, Ordering::SeqCst);
        // Whether it is refused when it is submitted or when it is done is the device's.
        let submitted = bench.copy(&mut streamer, 0);
        let errors = streamer.reset();
        assert!(submitted.is_err() || !errors.is_empty());
        bench.pass(&mut streamer, 0, &program());
        bench.pass(&mut streamer, 0, &program());
    });
}

#[test]
fn forms_and_uses_that_do_not_fit_are_refused_by_name() {
    type Change = fn(&mut Config);
    let refused = |change: Change| {
        let bench = Bench::new(HostMode::Discrete);
        let mut config = bench.config(vec![program()]);
        change(&mut config);
        Streamer::new(config).unwrap_err().to_string()
    };
    let cases: [(Change, &str); 8] = [
        (
            |c| c.weights[0].source.start += 1 << 40,
            "weight 'up': its bytes",
        ),
        (
            |c| c.weights[0].matrix.rows = usize::MAX,
            "weight 'up': 1 x 18446744073709551615 rows of 48 values cannot be f32",
        ),
        (
            |c| c.weights[1].matrix.columns = 95,
            "weight 'head': 1 x 700 rows of 95 values cannot be q8_0",
        ),
        (
            |c| c.weights[1].source = c.weights[1].form(Role::Rows).clone(),
            "weight 'head': its source is packed, and it is read as rows+table",
        ),
        (
            |c| c.programs[0].push(Use::expert(WeightId(3), 4)),
            "weight 'packed experts' has no expert 4: there are 4",
        ),
        (
            |c| c.programs[0].push(WeightId(4).into()),
            "weight 'norm' cannot be both pinned and streamed",
        ),
        (
            |c| c.weights[0].roles = Role::Table.into(),
            "weight 'up' is not streamed",
        ),
        (
            |c| c.weights[1].matrix.rows = 900,
            "weight 1: 12 offsets of units where the rows need 16",
        ),
    ];
    for (change, expected) in cases {
        let found = refused(change);
        assert!(found.contains(expected), "{found} for {expected}");
    }
    let bench = Bench::new(HostMode::Discrete);
    let mut config = bench.config(vec![program()]);
    config.weights[1].second.as_mut().unwrap().units = None;
    let error = Streamer::new(config).unwrap_err();
    assert!(
        matches!(error, Error::Sheet(SheetError::NoUnits { weight: HEAD })),
        "{error}"
    );
}
