//! Weights that are packed while anything streams and turn plain with what is left, on the host device.

use crate::halved::{Bench, EXPERTS, HEAD, MADE, program, together};
use std::sync::Arc;
use trt_device::{Host, HostMode};
use trt_stream::{Applied, Case, ProgramId, Request, Streamer, WeightId, Why, simulate};

fn both(test: impl Fn(Bench)) {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        test(Bench::on(Arc::new(Host::new(mode))));
    }
}

/// Budgets from the floor to the total, of which each half streams or turns.
fn budgets(streamer: &Streamer, count: u64) -> Vec<u64> {
    let limits = streamer.layout().limits();
    let (floor, still, total) = (limits.floor(), limits.still(), limits.total);
    let streams = (0..count).map(|i| floor + (still - floor) * i / count);
    let turns = (0..=count).map(|i| still + (total - still) * i / count);
    streams.chain(turns).collect()
}

fn set(streamer: &mut Streamer, bytes: u64) -> Applied {
    streamer.set_budget(Request::Bytes(bytes), 0).unwrap()
}

/// The weights that are read plain though they have a packed form.
fn plain(streamer: &Streamer) -> Vec<u32> {
    let two = (0..MADE.len() as u32).filter(|w| MADE[*w as usize].2);
    two.filter(|w| streamer.form(WeightId(*w)).unwrap().units.is_none())
        .collect()
}

#[test]
fn every_budget_gives_the_same_values_and_takes_what_it_says() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let limits = streamer.layout().limits();
        let mut before = 0;
        for bytes in budgets(&streamer, 9) {
            bench.pool.reset_high_water();
            let applied = set(&mut streamer, bytes);
            for _ in 0..2 {
                bench.pass(&mut streamer);
            }
            assert!(applied.used() <= applied.applied, "{applied:?}");
            assert_eq!(bench.pool.in_use(), applied.used());
            assert!(bench.pool.high_water() <= bytes.max(before));
            assert_eq!(streamer.last_pass().bytes, applied.streamed);
            assert_eq!(applied.streamed == 0, bytes >= limits.still());
            before = bytes;
        }
        let full = streamer.applied().unwrap();
        assert_eq!((full.packed, full.used()), (0, limits.total));
        assert_eq!(plain(&streamer), [0, 1, 3, 4, 5, 6]);
    });
}

#[test]
fn what_is_planned_is_proven_and_is_what_crosses_the_link() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        for bytes in budgets(&streamer, 4) {
            let applied = set(&mut streamer, bytes);
            let uses = program();
            bench.pass(&mut streamer);
            bench.pass(&mut streamer);
            let layout = streamer.layout();
            let case = Case {
                tiling: layout.tiling(),
                uses: &uses,
                together: &together(),
                pinned: layout.limits().pinned,
                split: &layout.split(bytes),
                cycle: streamer.cycle(ProgramId(0)).unwrap(),
                budget: bytes,
            };
            let account = simulate(&case, 3).unwrap();
            assert_eq!(account.streamed, streamer.last_pass().bytes);
            assert_eq!(account.peak, applied.used());
        }
    });
}

#[test]
fn the_budget_may_change_at_every_pass_within_the_larger_of_two() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let all = budgets(&streamer, 7);
        let mut before = all[0];
        for i in 0..90 {
            let bytes = all[i * 11 % 15 * (i % 7 + 1) % 15];
            // What is about to go must go before something else takes its place.
            bench.pool.set_limit(bytes.max(before)).unwrap();
            set(&mut streamer, bytes);
            bench.pool.set_limit(bytes).unwrap();
            if i % 3 != 1 {
                bench.pass(&mut streamer);
            }
            before = bytes;
        }
    });
}

#[test]
fn turning_brings_one_launch_at_a_time_and_nothing_else() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let still = streamer.layout().limits().still();
        set(&mut streamer, still);
        bench.pass(&mut streamer);
        let groups = streamer.layout().groups().to_vec();
        assert_eq!(groups.len(), 4);
        let mut bytes = still;
        let used = |weights: &[WeightId], plain: bool| {
            // Of the experts only those that the program uses are loaded.
            let tiling = streamer.layout().tiling().clone();
            let uses = program()
                .into_iter()
                .filter(|u| weights.contains(&u.weight));
            let tiles = uses.flat_map(|u| match plain {
                true => tiling.plain_of(u).collect::<Vec<_>>(),
                false => tiling.of(u).collect(),
            });
            let mut tiles: Vec<_> = tiles.collect();
            tiles.sort();
            tiles.dedup();
            tiles
                .iter()
                .map(|t| tiling.tile(*t).stored_bytes())
                .sum::<u64>()
        };
        let loads: Vec<[u64; 2]> = groups
            .iter()
            .map(|g| [used(&g.weights, true), used(&g.weights, false)])
            .collect();
        for (group, [up, _]) in groups.iter().zip(&loads) {
            let changes = streamer.changes();
            bytes += group.plain - group.packed;
            set(&mut streamer, bytes - 1);
            assert_eq!(streamer.changes(), changes, "not enough for the next");
            let applied = set(&mut streamer, bytes);
            assert_eq!((streamer.changes(), applied.used()), (changes + 1, bytes));
            bench.pass(&mut streamer);
            assert_eq!(streamer.last_pass().loaded, *up);
            assert_eq!(streamer.last_pass().bytes, 0);
        }
        for (group, [_, down]) in groups.iter().zip(&loads).rev() {
            bytes -= group.plain - group.packed;
            assert_eq!(set(&mut streamer, bytes).used(), bytes);
            bench.pass(&mut streamer);
            assert_eq!(streamer.last_pass().loaded, *down);
        }
        assert_eq!(plain(&streamer), [0; 0]);
    });
}

#[test]
fn what_is_recorded_goes_when_weights_turn() {
    let bench = Bench::on(Arc::new(Host::discrete()));
    let mut streamer = bench.streamer(Request::Full);
    let mut numbers = Vec::new();
    let limits = streamer.layout().limits();
    for bytes in [limits.total, limits.still(), limits.total, limits.still()] {
        set(&mut streamer, bytes);
        bench.pass(&mut streamer);
        numbers.push(streamer.settled(ProgramId(0)).unwrap().unwrap());
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
}

#[test]
fn a_share_is_of_the_plain_bytes_and_packed_is_what_turns_back() {
    both(|bench| {
        let mut streamer = bench.streamer("100%".parse().unwrap());
        assert_eq!(streamer.applied().unwrap().packed, 0);
        let applied = streamer.set_budget("72%".parse().unwrap(), 0).unwrap();
        assert_eq!((applied.streamed, applied.ring), (0, 0));
        assert!(applied.packed > 0 && applied.packed < applied.resident);
        bench.pass(&mut streamer);
        let mut config = bench.config("100%".parse().unwrap());
        config.turning.prefer_plain = false;
        drop(streamer);
        let mut streamer = Streamer::new(config).unwrap();
        let applied = streamer.applied().unwrap();
        assert!(matches!(applied.why, Why::ClampedToTotal { .. }));
        assert_eq!((applied.applied, applied.streamed), (streamer.total(), 0));
        assert_eq!(plain(&streamer), [0; 0]);
        bench.pass(&mut streamer);
    });
}

#[test]
fn under_pressure_weights_turn_back_before_anything_streams() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Full);
        bench.pass(&mut streamer);
        let limits = streamer.layout().limits();
        let applied = streamer
            .shrink((limits.total + limits.still()) / 2)
            .unwrap();
        assert_eq!(applied.streamed, 0);
        assert!(applied.packed > 0);
        bench.pass(&mut streamer);
        let applied = streamer.shrink(limits.floor()).unwrap();
        assert!(applied.streamed > 0);
        bench.pass(&mut streamer);
        let applied = streamer.regrow(limits.total).unwrap();
        assert_eq!((applied.used(), applied.packed), (limits.total, 0));
        bench.pass(&mut streamer);
    });
}

#[test]
fn a_change_that_the_device_has_no_memory_for_leaves_the_forms_as_they_were() {
    // The least memory in which everything is resident packed, and a little.
    let probe = Bench::on(Arc::new(Host::discrete()));
    let streamer = probe.streamer(Request::Minimum);
    let limits = streamer.layout().limits();
    let first = &streamer.layout().groups()[0];
    let more = first.plain - first.packed;
    let room = (1 << 20) + limits.still() + more + 4096;
    let bench = Bench::on(Arc::new(Host::discrete().with_memory(room)));
    let mut streamer = bench.streamer(Request::Bytes(limits.still() + more));
    bench.pass(&mut streamer);
    let (before, forms) = (streamer.applied().unwrap(), plain(&streamer));
    assert!(!forms.is_empty());
    let error = streamer.set_budget(Request::Full, 0).unwrap_err();
    assert!(error.out_of_memory().is_some(), "{error}");
    assert_eq!(streamer.applied().unwrap(), before);
    assert_eq!(plain(&streamer), forms);
    assert_eq!(bench.pool.in_use(), before.used());
    bench.pass(&mut streamer);
    assert_eq!(streamer.last_pass().bytes, 0);
    // Whatever is free is less than was asked for.
    let applied = streamer
        .set_budget(Request::Automatic, limits.total)
        .unwrap();
    assert!(applied.applied >= before.applied, "{applied:?}");
    bench.pass(&mut streamer);
}

#[test]
fn a_tied_table_is_gathered_plain_in_either_form() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Minimum);
        let source = streamer.mapped(HEAD).unwrap();
        let read = |streamer: &Streamer| {
            let table = streamer.mapped(HEAD).unwrap();
            let mut found = vec![0; table.len()];
            bench
                .device
                .read(bench.compute, &table, &mut found)
                .unwrap();
            found
        };
        let first = read(&streamer);
        assert_eq!(first.len(), source.len());
        let total = streamer.total();
        set(&mut streamer, total);
        bench.pass(&mut streamer);
        assert!(read(&streamer) == first);
        assert!(streamer.layout().tiling().turns(EXPERTS));
    });
}

#[test]
fn weights_turn_back_where_packed_is_preferred_from_now_on() {
    both(|bench| {
        let mut streamer = bench.streamer(Request::Full);
        bench.pass(&mut streamer);
        let limits = streamer.layout().limits();
        let applied = streamer.prefer_plain(false).unwrap();
        assert_eq!(
            (applied.applied, applied.total),
            (limits.still(), limits.still())
        );
        assert_eq!((applied.used(), applied.streamed), (limits.still(), 0));
        assert_eq!(bench.pool.in_use(), applied.used());
        assert_eq!(plain(&streamer), [0; 0]);
        bench.pass(&mut streamer);
        let full = Applied {
            applied: limits.total,
            ..applied
        };
        let restored = streamer.restore(&full).unwrap();
        assert_eq!(restored.applied, limits.still());
        // What was asked for is had again when there is reason to.
        let applied = streamer.prefer_plain(true).unwrap();
        assert_eq!(
            (applied.applied, applied.total),
            (limits.still(), limits.total)
        );
        let applied = streamer.regrow(limits.total).unwrap();
        assert_eq!((applied.used(), applied.packed), (limits.total, 0));
        bench.pass(&mut streamer);
    });
}
