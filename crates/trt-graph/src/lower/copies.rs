//! Kernels that compute nothing: strided copies and zeros.

use super::emit::Args;
use super::place::Place;
use trt_kernel::{BodyBuilder, Dim, Inst, Kernel, Move, Row, View};

/// A strided copy.
pub(super) fn between(source: &Place, target: &Place, shape: &[Dim]) -> (Kernel, Args) {
    let mut args = Args::default();
    args.fresh(source.source, source.dtype);
    args.fresh(target.source, target.dtype);
    let view = |p: &Place| View {
        offset: p.offset.clone(),
        strides: p.strides.clone(),
    };
    let (mut src, mut dst, mut space) = (view(source), view(target), shape.to_vec());
    if space.is_empty() {
        space.push(Dim::from(1));
        src.strides.push(Dim::from(0));
        dst.strides.push(Dim::from(0));
    }
    (
        Kernel::Move(Move {
            space,
            dtype: source.dtype,
            src,
            dst,
        }),
        args,
    )
}

/// Zeros all over a tensor of a buffer of its own.
pub(super) fn zeros(target: &Place, shape: &[Dim]) -> (Kernel, Args) {
    let mut args = Args::default();
    let arg = args.fresh(target.source, target.dtype);
    let mut body = BodyBuilder::new();
    let zero = match target.dtype.is_float() {
        true => body.push(Inst::F32(0.0)),
        false => body.push(Inst::I64(Dim::from(0))),
    };
    let space = vec![Dim::product(shape)];
    body.store(arg, View::contiguous(&space), zero);
    let kernel = Kernel::Row(Row {
        space,
        args: args.dtypes.clone(),
        body: body.finish(),
    });
    (kernel, args)
}
