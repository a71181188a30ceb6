//! What the copy engine is told about a launch's operands, from where they are in this launch.
//!
//! Invariant: a map shows rows of one pitch from one base, and every row that a kernel takes from
//! it lies where the map says. Weights and activations move between calls, so maps are made for
//! each launch and are part of its parameters: what is recorded keeps the maps together with the
//! addresses that it was recorded with. Where operands lie so that no map shows them, there is
//! none, and the caller launches what needs none.

use crate::cuda::driver::{Bound, Boxes, MAP_WORDS, Maps};
use trt_kernel::launch::TilesParam;
use trt_kernel::ptx::{MAP_RANGES, MapParam, Mapped, TensorMap};
use trt_kernel::{DType, Env};

/// Bytes of a box along a row.
const BOX_BYTES: u64 = 128;
/// Bytes in which maps begin.
const ALIGN: u64 = 16;
/// Rows that a map may have, so that 31 bits count those of every box.
const MOST_ROWS: u64 = (1 << 31) - 256;

/// Where a launch finds its operands.
pub(in crate::cuda) struct Places<'a> {
    pub env: &'a Env,
    /// The address of each argument of the part; none where the copy engine cannot read it.
    pub args: Vec<Option<u64>>,
    /// The tiles of each weight; none where the copy engine cannot read them.
    pub tiles: Vec<Option<TilesParam>>,
    /// The address of working memory, if the launch needs any.
    pub scratch: Option<u64>,
}

/// A map of nothing: its base is above all addresses.
pub(in crate::cuda) const NOTHING: MapParam = MapParam {
    map: [0; MAP_WORDS],
    base: u64::MAX,
};

/// What maps show in a launch, each with its base; none where one of them cannot be made.
pub(in crate::cuda) fn shown(
    maps: &[TensorMap],
    places: &Places<'_>,
) -> Option<Vec<Option<Boxes>>> {
    maps.iter().map(|map| places.of(map)).collect()
}

/// Has the driver encode maps. None where it refuses one, which it may for reasons of its own.
pub(in crate::cuda) fn encode(
    shown: &[Option<Boxes>],
    proof: Maps,
    bound: &Bound<'_>,
) -> Option<Vec<MapParam>> {
    let each = shown.iter().map(|boxes| match boxes {
        None => Some(NOTHING),
        Some(boxes) => match boxes.encode(proof, bound) {
            Ok(map) => Some(MapParam {
                map,
                base: boxes.address,
            }),
            Err(error) => {
                tracing::debug!(%error, "no tensor map");
                None
            }
        },
    });
    each.collect()
}

impl Places<'_> {
    /// What a map shows: nothing where no tile is in its range. None where no map can show it.
    fn of(&self, map: &TensorMap) -> Option<Option<Boxes>> {
        let pitch = map.pitch as u64;
        let (address, rows) = match &map.of {
            Mapped::Rows { arg, offset, rows } => {
                let at = (*self.args.get(arg.0 as usize)?)?;
                (at + *offset as u64, rows.size(self.env) as u64)
            }
            Mapped::Scratch { offset, rows } => (self.scratch? + *offset as u64, *rows as u64),
            Mapped::Tiles { weight, range } => {
                let tiles = self.tiles.get(usize::from(*weight))?.as_ref()?;
                let ranges = ranges(tiles, pitch)?;
                match *ranges.get(usize::from(*range))? {
                    Some(range) => range,
                    None => return Some(None),
                }
            }
        };
        let size = map.dtype.size() as u64;
        let whole = [address, pitch].iter().all(|n| n.is_multiple_of(ALIGN));
        let brain = match map.dtype {
            DType::BF16 => true,
            DType::F16 => false,
            DType::F32 | DType::U8 | DType::U32 | DType::I64 => return None,
        };
        (whole && (1..=MOST_ROWS).contains(&rows)).then_some(Some(Boxes {
            brain,
            address,
            columns: map.columns as u64,
            rows,
            pitch,
            sizes: [(BOX_BYTES / size) as u32, map.box_rows],
        }))
    }
}

/// Base and rows of a range of tiles; nothing where no tile is in it.
type Span = Option<(u64, u64)>;

/// The ranges that tiles lie in, all of them nothing where a weight has no rows in a launch. None where there would be more, or boxes of a tile would cross
/// the end of a row of the map.
fn ranges(tiles: &TilesParam, pitch: u64) -> Option<[Span; MAP_RANGES as usize]> {
    let rows = u64::from(tiles.end.saturating_sub(tiles.first));
    let step = u64::from(tiles.step.max(1));
    let count = rows.div_ceil(step) as usize;
    let mut each: Vec<(u64, u64)> = tiles
        .address
        .get(..count)?
        .iter()
        .zip(0..)
        .map(|(at, i)| (*at, at + step.min(rows - i * step) * pitch))
        .collect();
    each.sort_unstable();
    // A launch of several weights may be on rows of one of them.
    let Some(&(lowest, _)) = each.first() else {
        return Some([None; MAP_RANGES as usize]);
    };
    let in_step = |at: u64| (at - lowest).is_multiple_of(BOX_BYTES);
    if !each.iter().all(|(at, _)| in_step(*at)) {
        return None;
    }
    let mut spans = [None; MAP_RANGES as usize];
    let mut rest = each.as_slice();
    for span in &mut spans {
        let Some((base, _)) = rest.first() else {
            break;
        };
        let rows_to = |end: u64| (end - base).div_ceil(pitch.max(1));
        let near = rest.partition_point(|(_, end)| rows_to(*end) <= MOST_ROWS);
        let (ours, others) = rest.split_at(near);
        *span = Some((*base, rows_to(ours.last()?.1)));
        rest = others;
    }
    rest.is_empty().then_some(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::fusible::MAX_TILES;
    use trt_kernel::{Arg, Dim, Var};

    const COLUMNS: usize = 128;
    const PITCH: u64 = 256;
    const FAR: u64 = MOST_ROWS * PITCH;

    fn rows() -> TensorMap {
        TensorMap {
            of: Mapped::Rows {
                arg: Arg(1),
                offset: 32,
                rows: Dim::var(Var(0)),
            },
            dtype: DType::BF16,
            columns: COLUMNS,
            pitch: 512,
            box_rows: 128,
        }
    }

    /// 160 rows in tiles of 64.
    fn tiles(places: [u64; 3]) -> TilesParam {
        let mut address = [u64::MAX; MAX_TILES];
        address[..3].copy_from_slice(&places);
        TilesParam {
            first: 64,
            end: 224,
            step: 64,
            reserved: 0,
            address,
        }
    }

    fn of_tiles(places: [u64; 3]) -> Option<Vec<Option<(u64, u64)>>> {
        let env = Env::default();
        let map = |range| TensorMap {
            of: Mapped::Tiles { weight: 0, range },
            dtype: DType::F16,
            columns: COLUMNS,
            pitch: PITCH as usize,
            box_rows: 64,
        };
        let maps: Vec<TensorMap> = (0..MAP_RANGES).map(map).collect();
        let places = Places {
            env: &env,
            args: Vec::new(),
            tiles: vec![Some(tiles(places))],
            scratch: None,
        };
        let all = shown(&maps, &places)?.into_iter();
        Some(all.map(|b| b.map(|b| (b.address, b.rows))).collect())
    }

    #[test]
    fn a_weight_without_rows_needs_no_map() {
        let none = TilesParam {
            first: 64,
            end: 64,
            step: 64,
            reserved: 0,
            address: [0; MAX_TILES],
        };
        assert_eq!(ranges(&none, PITCH), Some([None; MAP_RANGES as usize]));
    }

    #[test]
    fn a_map_of_rows_begins_at_the_first_and_has_as_many_as_the_call() {
        let env = Env::new(&[77]);
        let of = |args: &[Option<u64>]| {
            let places = Places {
                env: &env,
                args: args.to_vec(),
                tiles: Vec::new(),
                scratch: None,
            };
            shown(&[rows()], &places)
        };
        let boxes = of(&[None, Some(0x1000)]).unwrap()[0].unwrap();
        let expected = Boxes {
            brain: true,
            address: 0x1020,
            columns: 128,
            rows: 77,
            pitch: 512,
            sizes: [64, 128],
        };
        assert_eq!(boxes, expected);
        assert_eq!(of(&[None, Some(0x1008)]), None, "not at 16 bytes");
        assert_eq!(of(&[Some(0x1000), None]), None, "not for the copy engine");
    }

    #[test]
    fn a_map_of_working_memory_begins_where_that_is() {
        let env = Env::default();
        let map = TensorMap {
            of: Mapped::Scratch {
                offset: 256,
                rows: 512,
            },
            ..rows()
        };
        let of = |scratch| {
            let places = Places {
                env: &env,
                args: Vec::new(),
                tiles: Vec::new(),
                scratch,
            };
            shown(std::slice::from_ref(&map), &places)
        };
        let boxes = of(Some(0x1000)).unwrap()[0].unwrap();
        assert_eq!((boxes.address, boxes.rows), (0x1100, 512));
        assert_eq!(of(None), None);
    }

    #[test]
    fn one_map_shows_tiles_in_any_order_with_anything_between() {
        // The last tile has 32 rows, and starts in the middle of a row of the map.
        let at = [0x9000, 0x1000, 0x20080];
        let all = (0x20080 + 32 * PITCH - 0x1000).div_ceil(PITCH);
        assert_eq!(of_tiles(at).unwrap(), [Some((0x1000, all)), None]);
    }

    #[test]
    fn tiles_that_are_too_far_for_one_map_are_shown_by_the_second() {
        let far = 0x1000 + FAR;
        let spans = of_tiles([far, 0x1000, far + 0x8000]).unwrap();
        let all = (0x8000 + 32 * PITCH) / PITCH;
        assert_eq!(spans, [Some((0x1000, 64)), Some((far, all))]);
        // A tile whose end is too far is too far.
        let near = 0x1000 + FAR - 64 * PITCH;
        assert_eq!(of_tiles([0x1000, near, 0x5000]).unwrap()[1], None);
        let spans = of_tiles([0x1000, near + 128, 0x5000]).unwrap();
        assert_eq!(spans[1], Some((near + 128, 64)));
    }

    #[test]
    fn tiles_that_no_two_maps_show_have_none() {
        let far = 0x1000 + FAR;
        assert_eq!(of_tiles([0x1000, far, far + FAR]), None, "three ranges");
        assert_eq!(
            of_tiles([0x1000, 0x9040, 0x20000]),
            None,
            "boxes cross rows"
        );
        assert_eq!(of_tiles([0x1008, 0x9008, 0x20008]), None, "not at 16 bytes");
    }
}
