//! What a launch passes to the driver: parameters and grid.
//!
//! Pure functions of what a kernel emitted and what a call holds. Parameters are packed as the
//! words of one buffer, since each is a multiple of eight bytes with an alignment of eight. That of
//! a tensor map is more, and the assembler places such parameters by the addresses that they get
//! in the end, which only the driver knows: with maps it is told where each parameter starts.

use super::executable::Ready;
use super::maps::NOTHING;
use crate::Error;
use crate::cuda::driver::Grid;
use trt_kernel::Env;
use trt_kernel::fusible::MAX_TILES;
use trt_kernel::launch::{EntryLaunch, Param, TilesParam};
use trt_kernel::ptx::MapParam;

/// What a launch is given beside its arguments.
#[derive(Clone, Copy, Debug)]
pub(in crate::cuda) struct Surroundings {
    /// The address of the runtime integers.
    pub integers: u64,
    /// The address of the fault record.
    pub fault: u64,
    /// The address of the counters.
    pub counters: u64,
}

/// What the parameters of a launch are made of, beside its arguments.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Given<'a> {
    /// The tiles of each weight.
    pub tiles: &'a [TilesParam],
    pub maps: &'a [MapParam],
    pub around: Surroundings,
    /// The address of working memory.
    pub scratch: u64,
}

/// Appends the parameters of a launch in their order, as words, and if there are tensor maps among
/// them where each starts.
pub(in crate::cuda) fn pack(
    ready: &mut Ready,
    params: &[Param],
    given: Given<'_>,
    mut address: impl FnMut(usize) -> Result<u64, Error>,
) -> Result<(), Error> {
    let Ready { words, starts, .. } = ready;
    let Given {
        tiles,
        maps,
        around,
        scratch,
    } = given;
    let (start, mapped) = (words.len(), params.iter().any(is_map));
    for param in params {
        if mapped {
            starts.push(words.len() - start);
        }
        match param {
            Param::Arg(arg) => words.push(address(arg.0 as usize)?),
            Param::Tiles(weight) => {
                let tiles = tiles.get(*weight as usize).unwrap_or(&NO_ROWS);
                let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
                words.push(pair(tiles.first, tiles.end));
                words.push(pair(tiles.step, tiles.reserved));
                words.extend(tiles.address);
            }
            Param::Env => words.push(around.integers),
            Param::Scratch => words.push(scratch),
            Param::Fault => words.push(around.fault),
            Param::Counters => words.push(around.counters),
            Param::Map(index) => {
                let map = maps.get(usize::from(*index)).unwrap_or(&NOTHING);
                words.extend(map.map);
                words.push(map.base);
            }
        }
    }
    Ok(())
}

fn is_map(param: &Param) -> bool {
    matches!(param, Param::Map(_))
}

/// Nothing of a weight.
pub(in crate::cuda) const NO_ROWS: TilesParam = TilesParam {
    first: 0,
    end: 0,
    step: 1,
    reserved: 0,
    address: [0; MAX_TILES],
};

/// The most blocks along x, y and z.
const MOST_BLOCKS: [u64; 3] = [(1 << 31) - 1, 65535, 65535];

/// The grid of a launch in a call on so many `rows` of each weight; none where nothing is launched. The blocks, where there are
/// too many.
pub(in crate::cuda) fn grid(
    launch: &EntryLaunch,
    env: &Env,
    rows: &[usize],
    overlap: bool,
) -> Result<Option<Grid>, [u64; 3]> {
    if !launch.when.iter().all(|w| w.holds(env)) {
        return Ok(None);
    }
    let blocks = [0, 1, 2].map(|axis| launch.grid[axis].blocks(env, rows));
    if blocks.contains(&0) {
        return Ok(None);
    }
    if blocks.iter().zip(MOST_BLOCKS).any(|(b, most)| *b > most) {
        return Err(blocks);
    }
    Ok(Some(Grid {
        blocks: blocks.map(|b| b as u32),
        threads: launch.block,
        shared: launch.shared,
        overlap,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::launch::{Extent, When};
    use trt_kernel::{Arg, Dim, Var};

    fn launch(x: Extent) -> EntryLaunch {
        EntryLaunch {
            entry: "k".into(),
            when: vec![When {
                dim: Dim::var(Var(0)),
                min: 1,
                max: 8,
            }],
            grid: [x, Extent::Fixed(2), Extent::Fixed(1)],
            block: 128,
            shared: 64,
            mapped: false,
            sums: Vec::new(),
        }
    }

    #[test]
    fn parameters_lie_in_memory_as_the_kernel_reads_them() {
        let mut tiles = TilesParam {
            first: 0x0102_0304,
            end: 0x1112_1314,
            step: 0x2122_2324,
            reserved: 0,
            address: [0; MAX_TILES],
        };
        tiles.address[0] = 0x3132_3334_3536_3738;
        tiles.address[MAX_TILES - 1] = 7;
        let params = [
            Param::Arg(Arg(1)),
            Param::Arg(Arg(0)),
            Param::Tiles(0),
            Param::Env,
            Param::Scratch,
            Param::Fault,
            Param::Counters,
        ];
        let around = Surroundings {
            integers: 0xe,
            fault: 0xf,
            counters: 0xc,
        };
        let mut ready = Ready {
            words: vec![99],
            ..Ready::default()
        };
        let address = |a| Ok(0xa0 + a as u64);
        let given = Given {
            tiles: &[tiles],
            maps: &[],
            around,
            scratch: 0x5,
        };
        pack(&mut ready, &params, given, address).unwrap();
        let words = ready.words;
        assert!(ready.starts.is_empty(), "they lie as the kernel's do");

        assert_eq!(words[0], 99);
        let bytes: Vec<u8> = words[1..].iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = |offset: usize| u64::from_le_bytes(bytes[offset..][..8].try_into().unwrap());
        assert_eq!((at(0), at(8)), (0xa1, 0xa0));
        let start = 16;
        let fields = [
            (std::mem::offset_of!(TilesParam, first), tiles.first),
            (std::mem::offset_of!(TilesParam, end), tiles.end),
            (std::mem::offset_of!(TilesParam, step), tiles.step),
            (std::mem::offset_of!(TilesParam, reserved), tiles.reserved),
        ];
        for (offset, value) in fields {
            assert_eq!(bytes[start + offset..][..4], value.to_le_bytes());
        }
        let addresses = start + std::mem::offset_of!(TilesParam, address);
        assert_eq!(at(addresses), tiles.address[0]);
        let end = start + size_of::<TilesParam>();
        assert_eq!(at(end - 8), 7);
        assert_eq!((at(end), at(end + 8), at(end + 16)), (0xe, 0x5, 0xf));
        assert_eq!((at(end + 24), bytes.len()), (0xc, end + 32));
    }

    #[test]
    fn with_tensor_maps_the_driver_is_told_where_each_parameter_starts() {
        let map = |first: u64| MapParam {
            map: std::array::from_fn(|i| first + i as u64),
            base: first + 99,
        };
        let around = Surroundings {
            integers: 0xe,
            fault: 0,
            counters: 0,
        };
        let params = [Param::Map(0), Param::Map(1), Param::Env];
        let mut ready = Ready {
            words: vec![7; 3],
            starts: vec![0],
            ..Ready::default()
        };
        let maps = [map(100), map(200)];
        let given = Given {
            tiles: &[],
            maps: &maps,
            around,
            scratch: 0,
        };
        pack(&mut ready, &params, given, |_| Ok(0)).unwrap();
        let words = &ready.words[3..];
        assert_eq!((words[0], words[15], words[16]), (100, 115, 199));
        assert_eq!((words[17], words[32], words[33]), (200, 215, 299));
        assert_eq!((words[34], words.len()), (0xe, 35));
        assert_eq!(ready.starts, [0, 0, 17, 34]);
    }

    #[test]
    fn nothing_is_launched_without_blocks_or_where_a_condition_fails() {
        let rows = launch(Extent::Rows { weight: 0, per: 64 });
        assert_eq!(grid(&rows, &Env::new(&[1]), &[], false), Ok(None));
        assert_eq!(grid(&rows, &Env::new(&[9]), &[64], false), Ok(None));
        let some = grid(&rows, &Env::new(&[8]), &[65], true).unwrap().unwrap();
        assert_eq!(
            (some.blocks, some.threads, some.shared),
            ([2, 2, 1], 128, 64)
        );
    }

    #[test]
    fn a_grid_beyond_the_device_is_refused_with_its_blocks() {
        let huge = launch(Extent::Fixed(u32::MAX));
        assert_eq!(
            grid(&huge, &Env::new(&[1]), &[], false),
            Err([u64::from(u32::MAX), 2, 1])
        );
    }
}
