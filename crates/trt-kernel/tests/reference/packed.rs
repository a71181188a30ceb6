//! Arguments that are packed, made of plain ones, and plain ones of them.

use super::Buffer;
use super::units::{self, packed_kernel};
use trt_kernel::*;
use trt_pack::{Unpacker, unit_rows};

/// Packs the weights of a kernel by packed rows: of each there are the plain rows, and a buffer instead of what unpacks them.
pub fn pack(kernel: &Kernel, args: &mut [Buffer]) {
    let mut bytes: Vec<Vec<u8>> = args.iter().map(|b| b.bytes.clone()).collect();
    units::pack(kernel, &mut bytes);
    for ((buffer, bytes), encoding) in args.iter_mut().zip(bytes).zip(kernel.args()) {
        *buffer = Buffer { encoding, bytes };
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
        let range = units::units_of(code_bytes, unit..unit + 1);
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
