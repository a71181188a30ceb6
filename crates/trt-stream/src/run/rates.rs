//! How fast bytes come to a device, and how fast kernels read them there.
//!
//! Both are measured with the work that streaming itself submits: tiles of the weights that are
//! fetched, and kernels that read device memory once. They bound what any budget can reach.

use super::Error;
use super::weight::as_it_lies;
use crate::files::{TensorId, Weights};
use crate::plan::{Arrive, Rates};
use std::time::Instant;
use trt_alloc::{Pool, Purpose};
use trt_device::{Device, OwnedStream, Paging, Slice, Stream, Work};
use trt_kernel::{
    Arg, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, Reduce, Row, View,
};

/// Most bytes of one fetch.
const PIECE: usize = 16 << 20;
/// Most bytes that are fetched, and that the kernels read.
const MOST: usize = 1 << 30;
/// Columns that the reading kernels turn into one value.
const COLUMNS: usize = 16384;
const ROUNDS: usize = 5;

impl Rates {
    /// Measures with these weights: their first gigabyte is fetched several times, and as much
    /// device memory is read. What the pool gives for it is given back.
    ///
    /// # Errors
    /// If the pool or the device has no room for two pieces of weights, or the device refuses work.
    pub fn measure(pool: &Pool, weights: &Weights) -> Result<Rates, Error> {
        Rates::measure_with(pool, weights, MOST)
    }

    /// The same with at most this many bytes, of the device too: sooner done, and less exact. A row
    /// that is read takes 64 KiB.
    ///
    /// # Errors
    /// As [`Rates::measure`].
    pub fn measure_with(pool: &Pool, weights: &Weights, most: usize) -> Result<Rates, Error> {
        let device = pool.device().clone();
        let owned = OwnedStream::new(&device, "rates")?;
        let stream = owned.id();
        Ok(Rates {
            link: link(&*device, pool, weights, stream, most)?,
            memory: memory(&*device, pool, stream, most)?,
        })
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Times a batch of work, after a round that is not counted.
fn time(
    device: &dyn Device,
    stream: Stream,
    mut batch: impl FnMut() -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut seconds = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let start = Instant::now();
        batch()?;
        device.synchronize(stream)?;
        if round > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(median(seconds))
}

fn link(
    device: &dyn Device,
    pool: &Pool,
    weights: &Weights,
    stream: Stream,
    most: usize,
) -> Result<f64, Error> {
    // Two slots must fit in what the pool has left.
    let room = usize::try_from(pool.limit().saturating_sub(pool.in_use())).unwrap_or(most);
    let slot = room.min(most) / 2;
    let pieces = pieces(device, weights, slot.clamp(4096, PIECE), most)?;
    let bytes: usize = pieces.iter().map(Slice::len).sum();
    let largest = pieces.iter().map(Slice::len).max().unwrap_or(1);
    let slots = match as_it_lies(device.info().residency) {
        Arrive::Populate => Vec::new(),
        Arrive::Upload | Arrive::Unpack => vec![
            pool.acquire(largest as u64, Purpose::Ring)?,
            pool.acquire(largest as u64, Purpose::Ring)?,
        ],
    };
    let seconds = time(device, stream, || {
        for (i, src) in pieces.iter().enumerate() {
            let src = src.clone();
            match slots.get(i % 2) {
                Some(slot) => {
                    let dst = slot.whole().slice(0..src.len())?;
                    device.submit(stream, Work::Upload { dst, src })?;
                }
                None => {
                    device.submit(stream, Work::Populate(src.clone()))?;
                    device.submit(stream, Work::Discard(src))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(bytes as f64 / seconds)
}

/// Pieces of the largest weights, up to [`MOST`] bytes.
fn pieces(
    device: &dyn Device,
    weights: &Weights,
    piece: usize,
    most: usize,
) -> Result<Vec<Slice>, Error> {
    let mut ids: Vec<TensorId> = weights.ids().collect();
    ids.sort_by_key(|id| std::cmp::Reverse(weights.info(*id).bytes()));
    let mut pieces = Vec::new();
    let mut left = most;
    for id in ids {
        let info = weights.info(id);
        let file = &weights.files()[info.file.0 as usize];
        let map = device.map(
            &file.path,
            file.file.clone(),
            file.passing.clone(),
            Paging::Coarse,
        )?;
        let whole = map.whole().slice(info.range.clone())?;
        for start in (0..whole.len()).step_by(piece) {
            let end = (start + piece).min(whole.len());
            if left == 0 {
                return Ok(pieces);
            }
            left = left.saturating_sub(end - start);
            pieces.push(whole.slice(start..end)?);
        }
    }
    Ok(pieces)
}

/// The rate of the kernel that reads fastest: a sum of each row, or the product of each row with the
/// first. What a device makes of one may be bound by arithmetic (on the host the sum is, at a
/// sixth of what memory gives).
fn memory(device: &dyn Device, pool: &Pool, stream: Stream, most: usize) -> Result<f64, Error> {
    let free = (device.info().total_memory / 8).min(pool.limit().saturating_sub(pool.in_use()));
    let bytes = most.min(usize::try_from(free).unwrap_or(most));
    // A value for each row is stored too.
    let rows = (bytes / ((COLUMNS + 64) * 4)).max(1);
    let data = pool.acquire((rows * COLUMNS * 4) as u64, Purpose::Scratch)?;
    let out = pool.acquire((rows * 4) as u64, Purpose::Scratch)?;
    let (data, out) = (data.whole(), out.whole());
    fill(device, stream, &data)?;
    let first = data.slice(0..COLUMNS * 4)?;
    let kernels = [
        (sum(rows), vec![data.clone(), out.clone()]),
        (product(rows), vec![first, data.clone(), out]),
    ];
    let mut best: f64 = 0.0;
    for (kernel, args) in kernels {
        let executable = device.load(&kernel)?;
        let seconds = time(device, stream, || {
            let work = Work::Launch {
                executable: executable.clone(),
                env: Env::default(),
                args: args.clone(),
                tiles: Vec::new(),
                scratch: None,
            };
            Ok(device.submit(stream, work)?)
        })?;
        best = best.max(data.len() as f64 / seconds);
    }
    Ok(best)
}

/// Writes to all of it: pages that nothing was written to are one page of zeros to a host, which
/// its caches hold.
fn fill(device: &dyn Device, stream: Stream, data: &Slice) -> Result<(), Error> {
    let piece = PIECE.min(data.len());
    let first = data.slice(0..piece)?;
    let bytes = 1f32.to_le_bytes().repeat(piece / 4);
    let dst = first.clone();
    device.submit(stream, Work::Write { dst, bytes })?;
    for start in (piece..data.len()).step_by(piece) {
        let dst = data.slice(start..(start + piece).min(data.len()))?;
        let src = first.slice(0..dst.len())?;
        device.submit(stream, Work::Copy { dst, src })?;
    }
    Ok(())
}

/// `out[i] = Σ_j data[i, j]`.
fn sum(rows: usize) -> Kernel {
    let space = [Dim::from(rows), Dim::from(COLUMNS)];
    let mut body = BodyBuilder::new();
    let value = body.load(Arg(0), View::contiguous(&space));
    let sum = body.push(Inst::Reduce(Reduce::Sum, value));
    body.store(Arg(1), view([1, 0]), sum);
    Kernel::Row(Row {
        space: space.to_vec(),
        args: vec![DType::F32; 2],
        body: body.finish(),
    })
}

/// `out[i] = Σ_j first[j] data[i, j]`.
fn product(rows: usize) -> Kernel {
    let mut epilogue = BodyBuilder::new();
    let sum = epilogue.push(Inst::Input);
    epilogue.store(Arg(2), view([0, rows, 1]), sum);
    let operand = |arg: u16| Operand {
        arg: Arg(arg),
        view: view([0, COLUMNS, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(1),
        n: Dim::from(rows),
        k: Dim::from(COLUMNS),
        args: Encoding::plain([DType::F32; 3]),
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: epilogue.finish(),
    })
}

fn view<const N: usize>(strides: [usize; N]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    }
}
