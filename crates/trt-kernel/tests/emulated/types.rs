//! Every type of block on every way that reads one: bit for bit where values are stored as they are, and near the
//! reference where they are multiplied.

use super::*;

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: dims(strides),
    }
}

/// Bytes of any kind: scales that are infinite, none, negative or no numbers among them.
fn any_bytes(block: BlockType, len: usize, seed: u64) -> Buffer {
    let mut buffer = Buffer::zeros(block, len);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    buffer.bytes.fill_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as u8
    });
    buffer
}

/// `out[row] = table[ids[row]]`.
fn gather(block: BlockType, [rows, cols, entries]: [usize; 3]) -> Kernel {
    let mut body = BodyBuilder::new();
    let x = body.push(Inst::Input);
    body.store(Arg(2), view(&[cols, 1]), x);
    Kernel::Gather(Gather {
        rows: Dim::from(rows),
        cols,
        entries,
        args: vec![DType::U32.into(), block.into(), DType::F32.into()],
        ids: Operand {
            arg: Arg(0),
            view: view(&[1]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}

/// `out = a w^T`.
pub fn product(block: BlockType, [m, n, k]: [usize; 3], left: DType) -> Kernel {
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(&[0, k, 1]),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view(&[0, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![left.into(), block.into(), DType::F32.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

pub fn product_args(block: BlockType, [m, n, k]: [usize; 3], left: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(left, m * k, 1),
        Buffer::random(block, n * k, 2),
        Buffer::zeros(DType::F32, m * n),
    ]
}

/// The bits of values; one for all that are no numbers.
fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    let one = |x: f32| if x.is_nan() { f32::NAN } else { x };
    values.into_iter().map(|x| one(x).to_bits()).collect()
}

#[test]
fn a_gathered_row_has_the_bits_of_its_blocks_wherever_the_table_lies() {
    for block in BlockType::ALL {
        let [rows, entries] = [7, 5];
        let cols = 3 * block.values();
        let table = any_bytes(block, entries * cols, 3);
        let mut exact = vec![0f32; entries * cols];
        let each = table.bytes.chunks_exact(block.bytes());
        for (bytes, values) in each.zip(exact.chunks_exact_mut(block.values())) {
            block.decode(bytes, values);
        }
        let id = |row: usize| (row * 3 + 1) % entries;
        let wanted = bits((0..rows).flat_map(|r| exact[id(r) * cols..][..cols].to_vec()));
        let kernel = gather(block, [rows, cols, entries]);
        for e in emitted(&kernel) {
            for skew in [0, 4, block.alignment() as u64] {
                let mut args = vec![
                    Buffer::new(DType::U32, (0..rows).map(|r| id(r) as f64)),
                    table.clone(),
                    Buffer::zeros(DType::F32, rows * cols),
                ];
                let call = Call {
                    written: kernel.written(),
                    skew: Some((Arg(1), skew)),
                    ..Call::default()
                };
                emulator::run(&e, &call, &mut args).unwrap_or_else(|e| panic!("{block:?}: {e}"));
                let found = bits(args[2].values().into_iter().map(|x| x as f32));
                assert!(found == wanted, "{block:?} {skew} {}", e.target);
            }
        }
    }
}

#[test]
fn products_by_few_rows_are_those_of_the_values() {
    for block in BlockType::ALL {
        for (m, left) in [(1, DType::F32), (3, DType::BF16), (8, DType::F16)] {
            let shape = [m, 9, 3 * block.values()];
            let kernel = product(block, shape, left);
            let far = distance(&kernel, &Env::default(), &product_args(block, shape, left));
            assert!(far <= 20.0, "{block:?} {m} {left}: {far}");
        }
    }
}

#[test]
fn products_by_many_rows_of_f32_are_those_of_the_values() {
    for block in BlockType::ALL {
        for m in [9, 66] {
            let shape = [m, 65, 3 * block.values()];
            let kernel = product(block, shape, DType::F32);
            let args = product_args(block, shape, DType::F32);
            let far = distance(&kernel, &Env::default(), &args);
            assert!(far <= 20.0, "{block:?} {m}: {far}");
        }
    }
}
