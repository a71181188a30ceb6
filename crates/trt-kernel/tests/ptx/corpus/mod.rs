//! The kernels that are assembled: each template with the types and shapes in use.
//!
//! `v0` is the number of positions before a call (`past`), `v1` the number in it (`seq`).

pub mod attention;
pub mod conv;
pub mod encoded;
pub mod matmul;
pub mod moves;
pub mod packed;
pub mod picks;
pub mod routed;
pub mod row;
pub mod step;

use trt_kernel::*;

/// Every kernel, by a name that says what it is.
pub fn kernels() -> Vec<(String, Kernel)> {
    [
        row::kernels(),
        moves::kernels(),
        picks::kernels(),
        routed::kernels(),
        matmul::kernels(),
        attention::kernels(),
        step::kernels(),
        conv::kernels(),
        encoded::kernels(),
        packed::kernels(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub fn past() -> Dim {
    Dim::var(Var(0))
}

pub fn seq() -> Dim {
    Dim::var(Var(1))
}

/// Sizes from numbers and runtime integers.
pub fn dims<const N: usize>(sizes: [impl Into<Dim>; N]) -> Vec<Dim> {
    sizes.into_iter().map(Into::into).collect()
}

pub fn view(offset: impl Into<Dim>, strides: &[i64]) -> View {
    View {
        offset: offset.into(),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

/// A row kernel from what its body does.
pub fn rows(space: Vec<Dim>, args: &[DType], body: impl FnOnce(&mut BodyBuilder)) -> Kernel {
    let mut b = BodyBuilder::new();
    body(&mut b);
    Kernel::Row(Row {
        space,
        args: args.to_vec(),
        body: b.finish(),
    })
}
