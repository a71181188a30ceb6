//! Where kernels may find what they are given.
//!
//! Kernels take every address for a multiple of [`WIDEST`] and access as many bytes at once where
//! offsets and strides allow. An access that turns out not to be aligned ends the context for the
//! whole process, so addresses are looked at before each launch. Weights are brought to where they
//! are aligned, wherever their file has them: tiles and pinned weights by copying, rows that are read
//! in place by [`Files::in_place`](super::files::Files::in_place), which is told what is needed.

use crate::Error;
use trt_kernel::Kernel;
use trt_kernel::launch::TilesParam;

/// The widest access of a kernel, in bytes.
pub(super) const WIDEST: u64 = 16;

/// The kernel whose addresses are looked at.
#[derive(Debug)]
pub(super) struct Alignment {
    kind: &'static str,
    /// What the address of each argument must be a multiple of.
    args: Vec<u64>,
}

impl Alignment {
    pub fn new(kernel: &Kernel) -> Alignment {
        let mut args = vec![WIDEST; kernel.args().len()];
        for (first, part) in kernel.numbered_parts() {
            // A gather looks by itself how its table's rows lie, but not where their elements do.
            if let Kernel::Gather(k) = part
                && !k.body.touches(k.table)
                && let Some(align) = args.get_mut(usize::from(first + k.table.0))
                && let Some(dtype) = k.args.get(usize::from(k.table.0))
            {
                *align = dtype.size() as u64;
            }
        }
        Alignment {
            kind: kernel.kind(),
            args,
        }
    }

    /// What the address of an argument must be a multiple of.
    pub fn of(&self, arg: usize) -> u64 {
        self.args.get(arg).copied().unwrap_or(WIDEST)
    }

    /// The address of an argument; `first` is the launch's number of the kernel's first.
    pub fn arg(&self, first: usize, arg: usize, address: u64) -> Result<u64, Error> {
        self.check(address, self.of(arg), || {
            format!("argument a{}", first + arg)
        })
    }

    /// The addresses of a weight's tiles; those without rows are 0.
    pub fn tiles(&self, weight: usize, tiles: &TilesParam) -> Result<(), Error> {
        let mut each = tiles.address.iter().enumerate();
        each.try_for_each(|(tile, address)| {
            let what = || format!("tile {tile} of weight {weight}");
            self.check(*address, WIDEST, what).map(drop)
        })
    }

    /// The address of working memory.
    pub fn scratch(&self, address: u64) -> Result<u64, Error> {
        self.check(address, WIDEST, || "working memory".into())
    }

    fn check(&self, address: u64, align: u64, what: impl FnOnce() -> String) -> Result<u64, Error> {
        match address.is_multiple_of(align) {
            true => Ok(address),
            false => Err(Error::Misaligned {
                kernel: self.kind,
                what: what(),
                address,
                align,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::fusible::MAX_TILES;
    use trt_kernel::{Arg, BodyBuilder, DType, Dim, Gather, Inst, Move, Operand, View};

    fn copy() -> Alignment {
        let space = vec![Dim::from(8)];
        let view = View::contiguous(&space);
        Alignment::new(&Kernel::Move(Move {
            dtype: DType::BF16,
            src: view.clone(),
            dst: view,
            space,
        }))
    }

    #[test]
    fn every_address_is_a_multiple_of_the_widest_access() {
        let alignment = copy();
        assert_eq!(alignment.arg(0, 1, 0x7010).unwrap(), 0x7010);
        assert_eq!(alignment.scratch(0x7100).unwrap(), 0x7100);
        assert!(alignment.scratch(0x7104).is_err());
        let error = alignment.arg(3, 1, 0x7018).unwrap_err();
        assert!(matches!(
            error,
            Error::Misaligned {
                kernel: "move",
                address: 0x7018,
                align: 16,
                ..
            }
        ));
        let text = error.to_string();
        assert!(text.contains("a4") && text.contains("0x7018"), "{text}");
    }

    #[test]
    fn tiles_may_start_at_any_row_that_is_aligned() {
        let tiles = |second: u64| {
            let mut address = [0; MAX_TILES];
            address[..2].copy_from_slice(&[0x1000, second]);
            TilesParam {
                first: 0,
                end: 128,
                step: 64,
                reserved: 0,
                address,
            }
        };
        assert!(copy().tiles(0, &tiles(0x2430)).is_ok());
        let error = copy().tiles(2, &tiles(0x2438)).unwrap_err().to_string();
        assert!(error.contains("tile 1 of weight 2"), "{error}");
    }

    #[test]
    fn a_table_is_only_gathered_where_its_elements_are_aligned() {
        let view = View::contiguous(&[Dim::from(2), Dim::from(8)]);
        let gather = |reads_it_too: bool| {
            let mut body = BodyBuilder::new();
            let x = match reads_it_too {
                true => body.load(Arg(1), view.clone()),
                false => body.push(Inst::Input),
            };
            body.store(Arg(2), view.clone(), x);
            Alignment::new(&Kernel::Gather(Gather {
                rows: Dim::from(2),
                cols: 8,
                entries: 10,
                args: vec![DType::U32, DType::BF16, DType::F32],
                ids: Operand {
                    arg: Arg(0),
                    view: View::contiguous(&[Dim::from(2)]),
                },
                table: Arg(1),
                body: body.finish(),
            }))
        };
        assert!(gather(false).arg(0, 1, 0x1002).is_ok());
        assert!(gather(false).arg(0, 1, 0x1003).is_err());
        assert!(gather(false).arg(0, 0, 0x1004).is_err());
        assert!(gather(true).arg(0, 1, 0x1002).is_err());
    }
}
