//! Packed rows as bytes, made of plain ones; tests of kernels, also on devices, share it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ops::Range;
use trt_kernel::*;
use trt_pack::{Code, Counts, Kind, Packer, argument, place, unit_rows};

/// How rows of so many values are packed, their units, and what unpacks them.
pub fn packed_rows(dtype: DType, values: &[u16], k: usize) -> (PackedType, Vec<u8>, Vec<u8>) {
    let kind = match dtype {
        DType::BF16 => Kind::Bf16,
        DType::F16 => Kind::F16,
        other => panic!("{other} is not packed"),
    };
    let code = Code::best(&counted(kind, values)).expect("there are values");
    let form = PackedType::of(kind, code.arity());
    let [units, code] = units(form, &code, values, k);
    (form, units, code)
}

/// The units of rows in this form, and what unpacks them.
pub fn packed_as(form: PackedType, values: &[u16], k: usize) -> [Vec<u8>; 2] {
    let code = Code::of(&counted(form.kind(), values), form.arity());
    units(form, &code.expect("there are values"), values, k)
}

fn counted(kind: Kind, values: &[u16]) -> Counts {
    let mut counts = Counts::new(kind);
    counts.add(values);
    counts
}

fn units(form: PackedType, code: &Code, values: &[u16], k: usize) -> [Vec<u8>; 2] {
    let geometry = form.geometry(k).expect("rows that can be cut");
    let mut packer = Packer::new(geometry, code);
    let (mut units, mut places) = (Vec::new(), vec![0]);
    for unit in values.chunks(unit_rows(k) * k) {
        packer.pack(unit, &mut units).expect("whole rows");
        places.push((units.len() / 16) as u32);
    }
    [units, argument(code, &places)]
}

/// Where units lie among the bytes of a weight.
pub fn units_of(code: &[u8], units: Range<usize>) -> Range<usize> {
    let at = |unit| place(code, unit).expect("a unit's place");
    at(units.start)..at(units.end)
}

/// Where rows from a unit on lie, each row of so many values.
pub fn rows_of(code: &[u8], k: usize, rows: Range<usize>) -> Range<usize> {
    let each = unit_rows(k);
    assert!(rows.start.is_multiple_of(each), "rows from a unit on");
    units_of(code, rows.start / each..rows.end.div_ceil(each))
}

/// The same kernel with every weight that is read by rows in this form, and what unpacks it behind the other arguments of its product.
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

/// Packs the weights of a kernel by packed rows: of each there are the plain rows, and any bytes instead of what unpacks them.
pub fn pack(kernel: &Kernel, args: &mut [Vec<u8>]) {
    for (first, part) in kernel.numbered_parts() {
        let Kernel::Matmul(k) = part else { continue };
        let (Some(form), Some(code)) = (k.right().as_packed(), k.code()) else {
            continue;
        };
        let [b, code] = [k.b.arg, code].map(|arg| (first + arg.0) as usize);
        let depth = k.k.constant_size().expect("rows of known length");
        let pairs = args[b].as_chunks::<2>().0.iter();
        let values: Vec<u16> = pairs.map(|v| u16::from_le_bytes(*v)).collect();
        [args[b], args[code]] = packed_as(form, &values, depth);
    }
}
