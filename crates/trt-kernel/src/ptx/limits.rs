//! Which sizes the text counts with 32 bits: what it computes with them is right only while they
//! are small enough, and nothing in the text looks.
//!
//! Indices along axes are signed 32-bit values; so are the numbers of threads and blocks, and what
//! they are made of. Offsets in memory have 64 bits throughout.

use super::attention;
use super::{PtxError, gather, moves, row};
use crate::launch::{LARGEST_INDEX, TooLarge, within};
use crate::{Attention, Dim, Env, Gather, Kernel, Matmul};

/// The sizes of a kernel that calls decide. Fails if one is too large in every call.
pub(super) fn of(kernel: &Kernel) -> Result<Vec<Dim>, PtxError> {
    let (known, mut open): (Vec<Dim>, Vec<Dim>) = (all(kernel).into_iter()).partition(is_known);
    within(&known, &Env::default()).map_err(|TooLarge { dim, .. }| PtxError::Unsupported {
        kernel: kernel.kind(),
        what: format!("a size of {dim}, and indices of 32 bits go to {LARGEST_INDEX}"),
    })?;
    open.sort();
    open.dedup();
    Ok(open)
}

fn is_known(dim: &Dim) -> bool {
    dim.constant().is_some()
}

fn all(kernel: &Kernel) -> Vec<Dim> {
    match kernel {
        Kernel::Row(k) => row::counted(k),
        Kernel::Matmul(k) => of_product(k),
        Kernel::Routed(k) => of_product(&k.product),
        Kernel::Attention(k) => of_attention(k),
        Kernel::Gather(k) => of_gather(k),
        Kernel::Move(k) => moves::counted(k),
        Kernel::Group(k) => k.parts.iter().flat_map(all).collect(),
    }
}

fn of_product(k: &Matmul) -> Vec<Dim> {
    // Tiles are found by the bytes of a row, in 32 bits.
    let widest = k
        .args
        .iter()
        .map(|e| e.bytes().div_ceil(e.values()))
        .max()
        .unwrap_or(1);
    let row = &k.k * &Dim::from(widest);
    vec![k.batch.clone(), k.m.clone(), k.n.clone(), row]
}

fn of_attention(k: &Attention) -> Vec<Dim> {
    let rows = &k.queries * &Dim::from(k.heads);
    let mut dims = vec![k.batch.clone(), k.keys.clone(), rows];
    let blocks = k.kv_heads * attention::MAX_SPLITS * k.value_dim;
    dims.extend([k.head_dim, blocks].map(Dim::from));
    if let Some(causal) = &k.causal {
        dims.extend([causal.offset.clone(), &causal.offset + &k.queries]);
        let window = causal.window.and_then(|w| i64::try_from(w).ok());
        // A larger one hides nothing, and the text does without.
        let window = window.filter(|w| *w <= LARGEST_INDEX);
        dims.extend(window.map(|w| &causal.offset - &Dim::from(w)));
    }
    dims.extend(k.before.iter().flat_map(row::counted));
    dims
}

fn of_gather(k: &Gather) -> Vec<Dim> {
    let parts = gather::cut(k).parts;
    let blocks = &k.rows * &Dim::from(parts);
    vec![k.rows.clone(), Dim::from(k.cols), blocks]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::{Target, emit};
    use crate::{Arg, BodyBuilder, DType, Inst, Reduce, Row, Var, View};

    /// `a1 = a0` over some rows, or the sums of them.
    fn rows(space: Vec<Dim>, sums: bool) -> Kernel {
        let mut b = BodyBuilder::new();
        let whole = View::contiguous(&space);
        let mut x = b.load(Arg(0), whole.clone());
        if sums {
            x = b.push(Inst::Reduce(Reduce::Sum, x));
        }
        b.store(Arg(1), whole, x);
        Kernel::Row(Row {
            args: vec![DType::BF16; 2],
            body: b.finish(),
            space,
        })
    }

    fn seq() -> Dim {
        Dim::var(Var(1))
    }

    #[test]
    fn a_call_whose_merged_axes_pass_32_bits_is_refused() {
        let kernel = rows(vec![seq(), Dim::from(18_944)], false);
        for target in Target::ALL {
            let emitted = emit(&kernel, target).unwrap();
            let at = |seq: i64| emitted.within(&Env::new(&[0, seq]));
            assert_eq!(at(113_359), Ok(()));
            let wrong = at(113_360).unwrap_err().to_string();
            let numbers = "18944*v1 is 2147491840 in this call, and indices of 32 bits go to";
            assert_eq!(wrong, format!("{numbers} {LARGEST_INDEX}"));
        }
    }

    #[test]
    fn threads_and_rows_are_counted_too() {
        // Each axis is small enough, their product is not.
        let (wide, tall) = (Dim::from(1 << 20), seq());
        let apart = View {
            offset: Dim::from(0),
            strides: vec![Dim::from(1 << 24), Dim::from(1)],
        };
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), apart.clone());
        b.store(Arg(1), apart, x);
        let points = Kernel::Row(Row {
            space: vec![tall.clone(), wide],
            args: vec![DType::F32; 2],
            body: b.finish(),
        });
        let sums = rows(vec![tall.clone(), tall, Dim::from(64)], true);
        for (kernel, most) in [(points, 1 << 13), (sums, 46_340)] {
            let emitted = emit(&kernel, Target::Sm80).unwrap();
            let at = |seq: i64| emitted.within(&Env::new(&[0, seq])).is_ok();
            assert!(at(most - 1) && !at(most + 1), "{kernel}");
            // No product of runtime integers wraps back into range.
            assert!(!at(1 << 32) && !at(i64::MAX));
        }
    }

    #[test]
    fn a_kernel_that_is_too_large_in_every_call_has_no_text() {
        let kernel = rows(vec![Dim::from(1i64 << 33)], false);
        let wrong = emit(&kernel, Target::Sm90).unwrap_err().to_string();
        assert!(wrong.contains("a size of 8589934592"), "{wrong}");
    }
}
