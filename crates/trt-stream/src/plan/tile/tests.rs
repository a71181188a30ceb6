//! Weights of known sizes, cut.

use super::*;
use crate::plan::Units;
use std::sync::Arc;

fn sheet(weight: u32, rows: usize, row_bytes: usize) -> Sheet {
    Sheet::plain(WeightId(weight), rows, row_bytes)
}

fn cut(sheets: &[Sheet], target: u64) -> Tiling {
    Tiling::cut(sheets, TileTarget::Bytes(target)).unwrap()
}

#[test]
fn tiles_cover_a_weight_and_cut_at_panels() {
    let tiling = cut(&[sheet(3, 1000, 100)], 30_000);
    let mut next = 0;
    for id in tiling.of(WeightId(3).into()) {
        let tile = tiling.tile(id);
        assert_eq!(tile.rows.start, next);
        assert_eq!(tile.stored, tile.rows.start * 100..tile.rows.end * 100);
        assert_eq!(tile.held, tile.stored.len());
        assert!(tile.rows.end.is_multiple_of(ROW_PANEL) || tile.rows.end == 1000);
        assert!(tile.held_bytes() <= 30_000 + (ROW_PANEL * 100) as u64);
        next = tile.rows.end;
    }
    assert_eq!(next, 1000);
    assert_eq!(tiling.len(), 4);
    assert_eq!(tiling.total(), 100_000);
}

#[test]
fn no_tile_is_smaller_than_a_panel_unless_the_weight_is() {
    let tiling = cut(&[sheet(0, 10, 8), sheet(1, 256, 8)], 1);
    let rows: Vec<_> = tiling
        .ids()
        .map(|id| tiling.tile(id).rows.clone())
        .collect();
    assert_eq!(rows, [0..10, 0..64, 64..128, 128..192, 192..256]);
}

#[test]
fn no_tile_has_rows_of_two_experts() {
    let experts = Sheet {
        experts: 3,
        ..sheet(1, 100, 8)
    };
    let tiling = cut(&[sheet(0, 64, 8), experts], 1);
    let rows = |part| {
        let weight = WeightId(1);
        let tiles = tiling.of(Use { weight, part });
        tiles
            .map(|t| tiling.tile(t).rows.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(Part::Expert(0)), [0..64, 64..100]);
    assert_eq!(rows(Part::Expert(2)), [200..264, 264..300]);
    assert_eq!(rows(Part::Expert(3)), []);
    assert_eq!(rows(Part::All).len(), 6);
}

#[test]
fn packed_tiles_are_runs_of_units_and_differ_in_what_is_stored() {
    let units = Units::new(128, vec![0, 70, 75, 200]).unwrap();
    let packed = |arrive| Sheet {
        units: Some(Arc::new(units.clone())),
        arrive,
        ..sheet(0, 300, 10)
    };
    let bytes = |arrive| {
        let tiling = cut(&[packed(arrive)], 1);
        let tiles = tiling.ids().map(|t| tiling.tile(t).clone());
        let bytes: Vec<_> = tiles.map(|t| (t.stored, t.held)).collect();
        (bytes, tiling.slot(), tiling.stage())
    };
    let (unpacked, slot, stage) = bytes(Arrive::Unpack);
    assert_eq!(unpacked, [(0..70, 1280), (70..75, 1280), (75..200, 440)]);
    assert_eq!((slot.pages, slot.own, stage), (0, 1280, 125));
    let (as_it_is, slot, stage) = bytes(Arrive::Populate);
    assert_eq!(as_it_is, [(0..70, 70), (70..75, 5), (75..200, 125)]);
    assert_eq!((slot.pages, slot.own, stage), (125, 0, 0));
}

#[test]
fn sizes_that_cannot_be_counted_are_refused() {
    let refused = |sheets: &[Sheet]| Tiling::cut(sheets, TileTarget::Automatic).unwrap_err();
    let huge = [
        sheet(0, usize::MAX, 2),
        Sheet {
            experts: usize::MAX,
            ..sheet(0, 2, 1)
        },
        // More tiles than there are numbers.
        sheet(0, usize::MAX, 1),
        Sheet {
            experts: 1 << 33,
            ..sheet(0, 1, 1)
        },
    ];
    for sheet in huge {
        assert!(matches!(refused(&[sheet]), SheetError::TooLarge { .. }));
    }
    let half = |weight| sheet(weight, 1, (1 << 55) + 1);
    assert!(matches!(
        refused(&[half(0), half(1)]),
        SheetError::TooLarge { .. }
    ));
    let units = Units::new(64, vec![0, 1, 2]).unwrap();
    let short = Sheet {
        units: Some(Arc::new(units)),
        ..sheet(0, 129, 1)
    };
    assert!(matches!(
        refused(&[short]),
        SheetError::Count {
            found: 3,
            needed: 4,
            ..
        }
    ));
    let nowhere = Sheet {
        arrive: Arrive::Unpack,
        ..sheet(0, 129, 1)
    };
    assert!(matches!(refused(&[nowhere]), SheetError::NoUnits { .. }));
}

#[test]
fn the_automatic_target_follows_the_total() {
    assert_eq!(TileTarget::Automatic.resolve(1 << 20), 512 << 10);
    assert_eq!(TileTarget::Automatic.resolve(256 << 20), 2 << 20);
    assert_eq!(TileTarget::Automatic.resolve(16 << 30), 16 << 20);
}
