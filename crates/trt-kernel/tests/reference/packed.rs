//! Packed rows, made of plain ones.

use trt_kernel::{DType, PackedType};
use trt_pack::{Code, Counts, Kind, Packer, argument, unit_rows};

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
    let geometry = form.geometry(k).expect("rows that can be cut");
    let mut packer = Packer::new(geometry, &code);
    let (mut units, mut places) = (Vec::new(), vec![0]);
    for unit in values.chunks(unit_rows(k) * k) {
        packer.pack(unit, &mut units).expect("whole rows");
        places.push((units.len() / 16) as u32);
    }
    (form, units, argument(&code, &places))
}
