//! Every kernel that is assembled also runs, cut where it is large, and equals the host.

use super::*;

#[path = "../ptx/corpus/mod.rs"]
pub mod kernels;

/// Instructions of bodies, or products, that a kernel may take here.
const WORK: usize = 17_000_000;

/// The runtime integers to try: `past` and `seq`.
const ENVS: [[i64; 2]; 4] = [[0, 1], [5, 3], [37, 8], [3, 21]];

/// One past the last element that a kernel addresses in each argument.
fn extents(kernel: &Kernel, env: &Env) -> Vec<usize> {
    let mut lens = vec![0; kernel.args().len()];
    for access in kernel.accesses() {
        let last = access.reach(env).map_or(-1, |reach| reach.last);
        // A launch's own memory is no argument.
        if let Some(len) = lens.get_mut(access.arg.0 as usize) {
            *len = (last + 1).max(*len as i64) as usize;
        }
    }
    lens
}

/// About how much a kernel computes.
fn work(kernel: &Kernel, env: &Env) -> usize {
    let product = |dims: &[&Dim]| dims.iter().map(|d| d.size(env)).product::<usize>();
    match kernel {
        Kernel::Row(k) => product(&k.space.iter().collect::<Vec<_>>()) * k.body.insts.len(),
        Kernel::Matmul(k) | Kernel::Routed(Routed { product: k, .. }) => {
            product(&[&k.batch, &k.m, &k.n, &k.k])
        }
        Kernel::Attention(k) => {
            let pairs = product(&[&k.batch, &k.queries, &k.keys]) * k.heads;
            // Instructions: softmax, masks and the merging of splits come on top of products.
            pairs * (k.head_dim + k.value_dim) * 8
        }
        Kernel::Gather(k) => k.rows.size(env) * k.cols * 10,
        Kernel::Move(k) => product(&k.space.iter().collect::<Vec<_>>()) * 10,
        Kernel::Group(k) => k.parts.iter().map(|p| work(p, env)).sum(),
    }
}

/// How far two results may lie apart, in what the dtype resolves near 1: sums have thousands of
/// terms between -1 and 1.
fn allowed(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 60.0,
        DType::BF16 | DType::F16 => 4.0,
        DType::U8 | DType::U32 | DType::I64 => 0.0,
    }
}

/// Random values, which repeat themselves in a large buffer.
fn repeated(encoding: Encoding, len: usize, seed: u64) -> Buffer {
    // A whole number of blocks, and of rows of none.
    let some = encoding.values() * (65_521 / encoding.values());
    let some = Buffer::random(encoding, len.min(some), seed);
    let bytes = some.bytes.iter().copied().cycle();
    let all = encoding.row_bytes(len).expect("whole blocks");
    Buffer {
        encoding,
        bytes: bytes.take(all).collect(),
    }
}

/// Arguments of a chain that are to be equal, since its parts have one left operand.
fn shared_lefts(kernel: &Kernel) -> Vec<(usize, usize)> {
    let Kernel::Group(group) = kernel else {
        return Vec::new();
    };
    let lefts = kernel.numbered_parts().map(|(first, part)| match part {
        Kernel::Matmul(m) if group.order == Order::Chain => {
            let own = m.a.args().into_iter();
            own.map(|a| (first + a.0) as usize).collect()
        }
        _ => Vec::new(),
    });
    let lefts: Vec<Vec<usize>> = lefts.collect();
    let later = lefts.iter().skip(1);
    later
        .flat_map(|l| lefts[0].iter().copied().zip(l.iter().copied()))
        .collect()
}

/// The calls of a kernel that are small enough to run, in which it is as it is or, where none is, cut.
fn calls(kernel: &Kernel) -> Vec<(Kernel, Env)> {
    let of = |kernel: &Kernel| {
        let all = ENVS.iter().map(|e| Env::new(e));
        let constant = extents(kernel, &Env::new(&ENVS[0])) == extents(kernel, &Env::new(&ENVS[1]));
        let some = all.take(if constant { 1 } else { ENVS.len() });
        let small = some.filter(|env| {
            let elements = extents(kernel, env).iter().sum::<usize>();
            work(kernel, env) <= WORK && elements <= WORK
        });
        let calls = small.map(|env| (kernel.clone(), env));
        calls.collect::<Vec<_>>()
    };
    match of(kernel) {
        none if none.is_empty() => of(&cut::cut(kernel)),
        some => some,
    }
}

/// What the host's own rounding may make: of many rows of f32 that meet blocks it takes 16 bits, 2^8 times as coarse
/// as f32.
fn rounded(kernel: &Kernel, env: &Env) -> f64 {
    let coarse = |part: &Kernel| match part {
        Kernel::Matmul(k) => {
            let blocks = matches!(k.right(), Encoding::Blocks(_));
            blocks && k.left_dtype() == DType::F32 && k.m.size(env) > 8
        }
        _ => false,
    };
    match kernel.parts().iter().any(coarse) {
        true => 2048.0,
        false => 0.0,
    }
}

/// Runs one form of a kernel in a call and compares it with the host.
fn compare(name: &str, kernel: &Kernel, form: &Emitted, env: &Env, seed: u64) {
    let (encodings, lens) = (kernel.args(), extents(kernel, env));
    let random = |(i, (e, n)): (usize, (&Encoding, &usize))| match e {
        // Of their values; then they are packed.
        Encoding::Packed(packed) => repeated(packed.dtype().into(), *n, i as u64 + 1),
        Encoding::Code => repeated(DType::U32.into(), *n, i as u64 + 1),
        Encoding::Plain(_) | Encoding::Blocks(_) => repeated(*e, *n, i as u64 + 1),
    };
    let mut given: Vec<Buffer> = encodings
        .iter()
        .zip(&lens)
        .enumerate()
        .map(random)
        .collect();
    for (one, other) in shared_lefts(kernel) {
        given[other] = given[one].clone();
    }
    reference::packed::pack(kernel, &mut given);
    poison(kernel, &mut given);
    let mut exact = given.clone();
    reference::host(kernel, env, None, &mut exact).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut ours = given;
    launch(kernel, form, env, &[], seed, &mut ours);
    for arg in kernel.written() {
        let (a, b) = (&ours[arg.0 as usize], &exact[arg.0 as usize]);
        let (d, most) = (a.distance(b), allowed(a.dtype()).max(rounded(kernel, env)));
        assert!(d <= most, "{name} {} {env:?} a{}: {d}", form.target, arg.0);
    }
}

#[test]
fn every_kernel_of_the_corpus_equals_the_host() {
    let mut seed = 0;
    for (name, kernel) in kernels::kernels() {
        let calls = calls(&kernel);
        assert!(!calls.is_empty(), "{name} is too large, even cut");
        for (kernel, env) in calls {
            // One form for each call, in turn: together they run all of them.
            seed += 1;
            let forms = emitted(&kernel);
            let form = &forms[seed as usize % forms.len()];
            compare(&name, &kernel, form, &env, seed);
        }
    }
}
