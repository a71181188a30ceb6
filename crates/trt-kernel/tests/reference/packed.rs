//! Packed rows, made of plain ones, and plain ones of them.

use super::Buffer;
use trt_kernel::*;
use trt_pack::{Code, Counts, Kind, Packer, Unpacker, argument, place, unit_rows};

/// How rows of so many values are packed, their units, and what unpacks them.
pub fn packed_rows(dtype: DType, values: &[u16], k: usize) -> (PackedType, Vec<u8>, Vec<u8>) {
    let kind = match dtype {
        DType::BF16 => Kind::Bf16,
        DType::F16 => Kind::F16,
        other => panic!("{other} is not packed"),
    };
    let mut counts = Counts::new(kind);
    counts.add(values);
    let code = Code::best(&counts).expect("there are values");
    let form = PackedType::of(kind, code.arity());
    let (units, code) = units(form, &code, values, k);
    (form, units, code)
}

/// The units of rows in this form, and what unpacks them.
pub fn packed_as(form: PackedType, values: &[u16], k: usize) -> [Buffer; 2] {
    let mut counts = Counts::new(form.kind());
    counts.add(values);
    let code = Code::of(&counts, form.arity()).expect("there are values");
    let (units, code) = units(form, &code, values, k);
    let buffer = |encoding, bytes| Buffer { encoding, bytes };
    [buffer(form.into(), units), buffer(Encoding::Code, code)]
}

fn units(form: PackedType, code: &Code, values: &[u16], k: usize) -> (Vec<u8>, Vec<u8>) {
    let geometry = form.geometry(k).expect("rows that can be cut");
    let mut packer = Packer::new(geometry, code);
    let (mut units, mut places) = (Vec::new(), vec![0]);
    for unit in values.chunks(unit_rows(k) * k) {
        packer.pack(unit, &mut units).expect("whole rows");
        places.push((units.len() / 16) as u32);
    }
    (units, argument(code, &places))
}

/// The same kernel with every ranged weight in this form, with what unpacks it behind the other arguments of its product.
pub fn packed_kernel(kernel: &Kernel, form: PackedType) -> Kernel {
    match kernel {
        Kernel::Matmul(k) if k.ranged => {
            let mut k = k.clone();
            k.args[k.b.arg.0 as usize] = form.into();
            k.args.push(Encoding::Code);
            Kernel::Matmul(k)
        }
        Kernel::Group(group) => {
            let parts = group.parts.iter();
            Kernel::Group(Group {
                parts: parts.map(|part| packed_kernel(part, form)).collect(),
                order: group.order,
            })
        }
        other => other.clone(),
    }
}

/// Packs the weights of a kernel by packed rows: of each there are the plain rows, and some bytes instead of what unpacks them.
pub fn pack(kernel: &Kernel, args: &mut [Buffer]) {
    for (first, part) in kernel.numbered_parts() {
        let Kernel::Matmul(k) = part else { continue };
        let (Some(form), Some(code)) = (k.right().as_packed(), k.code()) else {
            continue;
        };
        let [b, code] = [k.b.arg, code].map(|arg| (first + arg.0) as usize);
        let depth = k.k.constant_size().expect("rows of known length");
        let values: Vec<u16> = (args[b].bytes.as_chunks::<2>().0.iter())
            .map(|v| u16::from_le_bytes(*v))
            .collect();
        [args[b], args[code]] = packed_as(form, &values, depth);
    }
}

/// Arguments of [`packed_kernel`] from those of the kernel by plain rows.
pub fn packed_args(kernel: &Kernel, args: &[Buffer], form: PackedType) -> Vec<Buffer> {
    let none = || Buffer::zeros(DType::U32, 0);
    let each = kernel.numbered_parts().flat_map(|(first, part)| {
        let own = args[first as usize..][..part.args().len()].iter().cloned();
        let ranged = matches!(part, Kernel::Matmul(k) if k.ranged);
        own.chain(ranged.then(none))
    });
    let mut all: Vec<Buffer> = each.collect();
    pack(&packed_kernel(kernel, form), &mut all);
    all
}

/// The product by the values of a weight that is packed, which takes the same arguments but for these; none if it is not packed.
pub fn plain(k: &Matmul, args: &[Buffer]) -> Option<(Matmul, Buffer)> {
    let (form, code) = (k.right().as_packed()?, k.code()?);
    let [n, depth] = [&k.n, &k.k].map(|d| d.constant_size().expect("a known size"));
    let geometry = form.geometry(depth).expect("rows that can be cut");
    let (b, code_bytes) = (k.b.arg.0 as usize, &args[code.0 as usize].bytes);
    let kinds = (form.kind(), form.arity());
    let unpacker = Unpacker::of_argument(geometry, kinds, code_bytes).expect("a table");
    let mut values = vec![0u16; n * depth];
    for (unit, values) in values.chunks_mut(unit_rows(depth) * depth).enumerate() {
        let range = units_of(code_bytes, unit..unit + 1);
        let unpacked = unpacker.unpack(&args[b].bytes[range], values);
        unpacked.expect("a unit");
    }
    let mut product = k.clone();
    product.args[b] = form.dtype().into();
    product.args[code.0 as usize] = DType::U32.into();
    let rows = Buffer {
        encoding: form.dtype().into(),
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    Some((product, rows))
}

/// Where units lie among the bytes of a weight.
pub fn units_of(code: &[u8], units: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let at = |unit| place(code, unit).expect("a unit's place");
    at(units.start)..at(units.end)
}
