//! What convolutions become: padding, windows copied to rows, products whose results are stored
//! channel by channel, and sums over the windows of single channels.

use super::{dims, rows, seq, view};
use trt_kernel::*;

/// Sizes of an image `[c, h, w]` and of a window `[k, k]`.
#[derive(Clone, Copy)]
struct Image {
    c: i64,
    h: i64,
    w: i64,
    k: i64,
    step: i64,
}

impl Image {
    fn places(self) -> [i64; 2] {
        [
            (self.h - self.k) / self.step + 1,
            (self.w - self.k) / self.step + 1,
        ]
    }
}

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    let small = Image {
        c: 16,
        h: 10,
        w: 12,
        k: 3,
        step: 1,
    };
    let odd = Image {
        c: 3,
        h: 15,
        w: 9,
        k: 7,
        step: 2,
    };
    let large = Image {
        c: 320,
        h: 66,
        w: 66,
        k: 3,
        step: 1,
    };
    let patch = Image {
        c: 3,
        h: 224,
        w: 224,
        k: 16,
        step: 16,
    };
    for d in [DType::BF16, DType::F16, DType::F32] {
        all.push((format!("zeros_{d}"), zeros(16 * 12 * 14, d)));
        all.push((format!("pad_{d}"), pad(small, d)));
        for (name, image) in [
            ("small", small),
            ("odd", odd),
            ("large", large),
            ("patch", patch),
        ] {
            for (order, last) in [("rows", false), ("channels", true)] {
                all.push((
                    format!("windows_{name}_{order}_{d}"),
                    windows(image, last, d),
                ));
            }
        }
        all.push((format!("conv_80x48x144_{d}"), product(80, 48, 144, d)));
        all.push((
            format!("conv_4096x320x2880_{d}"),
            product(4096, 320, 2880, d),
        ));
        all.push((format!("conv_any_{d}"), batches(9, 32, 27, d)));
        all.push((format!("pointwise_80x48x16_{d}"), pointwise(80, 48, 16, d)));
        all.push((format!("groups_4x30x6x36_{d}"), groups(4, 30, 6, 36, d)));
        all.push((format!("depthwise_3_{d}"), depthwise(small, d)));
        let wide = Image {
            c: 4,
            h: 20,
            w: 22,
            k: 7,
            step: 1,
        };
        all.push((format!("depthwise_7_{d}"), depthwise(wide, d)));
    }
    all
}

fn zeros(n: i64, dtype: DType) -> Kernel {
    rows(dims([n]), &[dtype], |b| {
        let zero = b.push(Inst::F32(0.0));
        b.store(Arg(0), view(0, &[1]), zero);
    })
}

/// Channels last, one zero at each end of both axes.
fn pad(i: Image, dtype: DType) -> Kernel {
    let pitch = (i.w + 2) * i.c;
    Kernel::Move(Move {
        space: dims([1, i.c, i.h, i.w]),
        dtype,
        src: view(0, &[0, 1, i.w * i.c, i.c]),
        dst: view(pitch + i.c, &[0, 1, pitch, i.c]),
    })
}

/// Windows as rows of `c * k * k` elements, of an image with its channels first or last.
fn windows(i: Image, last: bool, dtype: DType) -> Kernel {
    let ([oh, ow], inner) = (i.places(), i.c * i.k * i.k);
    let (y, x, c) = match last {
        true => (i.w * i.c, i.c, 1),
        false => (i.w, 1, i.h * i.w),
    };
    Kernel::Move(Move {
        space: dims([oh, ow, i.c, i.k, i.k]),
        dtype,
        src: view(0, &[y * i.step, x * i.step, c, y, x]),
        dst: view(0, &[ow * inner, inner, i.k * i.k, i.k, 1]),
    })
}

/// A bias for each channel, an activation and a residual; channel by channel in memory.
fn product(m: i64, n: i64, k: i64, dtype: DType) -> Kernel {
    let first = view(0, &[0, 1, m]);
    epilogue(Dim::from(m), n, k, view(0, &[0, k, 1]), first, dtype)
}

/// The same for any number of images of so many places: channels last in memory.
fn batches(places: i64, n: i64, k: i64, dtype: DType) -> Kernel {
    let m = &seq() * &Dim::from(places);
    epilogue(m, n, k, view(0, &[0, k, 1]), view(0, &[0, n, 1]), dtype)
}

/// The left operand is an image with channels first: its rows are columns in memory.
fn pointwise(m: i64, n: i64, k: i64, dtype: DType) -> Kernel {
    let first = view(0, &[0, 1, m]);
    epilogue(Dim::from(m), n, k, view(0, &[0, 1, m]), first, dtype)
}

fn epilogue(m: Dim, n: i64, k: i64, a: View, out: View, dtype: DType) -> Kernel {
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    let bias = b.load(Arg(2), view(0, &[0, 0, 1]));
    let with = b.binary(Binary::Add, sum, bias);
    let active = b.unary(Unary::Silu, with);
    let residual = b.load(Arg(3), out.clone());
    let y = b.binary(Binary::Add, active, residual);
    b.store(Arg(4), out, y);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m,
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([dtype; 5]),
        a: Left::Stored(Operand {
            arg: Arg(0),
            view: a,
        }),
        b: Operand {
            arg: Arg(1),
            view: view(0, &[0, k, 1]),
        },
        ranged: true,
        epilogue: b.finish(),
    })
}

/// Independent products of channels that do not see each other.
fn groups(groups: i64, m: i64, n: i64, k: i64, dtype: DType) -> Kernel {
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    b.store(Arg(2), view(0, &[m * n, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(groups),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([dtype; 3]),
        a: Left::Stored(Operand {
            arg: Arg(0),
            view: view(0, &[m * k, k, 1]),
        }),
        b: Operand {
            arg: Arg(1),
            view: view(0, &[n * k, k, 1]),
        },
        ranged: false,
        epilogue: b.finish(),
    })
}

/// Each channel by itself: a term for each element of the window.
fn depthwise(i: Image, dtype: DType) -> Kernel {
    let [oh, ow] = i.places();
    let taps = i.k * i.k;
    rows(dims([1, i.c, oh, ow]), &[dtype; 3], |b| {
        let mut sum: Option<Reg> = None;
        for tap in 0..taps {
            let (y, x) = (tap / i.k, tap % i.k);
            let at = view(y * i.w + x, &[0, i.h * i.w, i.w * i.step, i.step]);
            let value = b.load(Arg(0), at);
            let weight = b.load(Arg(1), view(tap, &[0, taps, 0, 0]));
            let term = b.binary(Binary::Mul, value, weight);
            sum = Some(match sum {
                None => term,
                Some(sum) => b.binary(Binary::Add, sum, term),
            });
        }
        let sum = sum.expect("a window has an element");
        let y = b.unary(Unary::Relu, sum);
        b.store(Arg(2), view(0, &[0, oh * ow, ow, 1]), y);
    })
}
