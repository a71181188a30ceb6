//! A real kernel: two chained ranged products over streamed weights give the same bits at every
//! budget, unified and discrete.

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{rows_of, write_f32};
use trt_alloc::Pool;
use trt_device::{Device, Host, HostMode, Work};
use trt_kernel::{
    Arg, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, View,
};
use trt_stream::{
    Config, Error, ProgramId, Request, Streamer, TileTarget, Turning, WeightId, Weights,
};

/// `out[m, n] = Σ_k a[m, k] * w[n, k]`.
fn product(m: usize, n: usize, k: usize) -> Kernel {
    let dim = |d: usize| Dim::from(d);
    let view = |strides: [usize; 3]| View {
        offset: dim(0),
        strides: strides.map(dim).to_vec(),
    };
    let mut epilogue = BodyBuilder::new();
    let sum = epilogue.push(Inst::Input);
    epilogue.store(Arg(2), view([0, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: dim(1),
        m: dim(m),
        n: dim(n),
        k: dim(k),
        args: Encoding::plain([DType::F32; 3]),
        a: Operand {
            arg: Arg(0),
            view: view([0, k, 1]),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view([0, k, 1]),
        },
        ranged: true,
        epilogue: epilogue.finish(),
    })
}

/// The bytes computed at each of some budgets, in `count` passes each.
fn results(path: &Path, mode: HostMode, m: usize) -> Vec<Vec<u8>> {
    let (n, k) = (700, 96);
    let weights = Arc::new(Weights::open(path).unwrap());
    let device: Arc<dyn Device> = Arc::new(Host::new(mode));
    let compute = device.stream("compute").unwrap();
    let uses = ["up", "down"].map(|name| WeightId(weights.find(name).unwrap().0).into());
    let mut streamer = Streamer::new(Config {
        pool: Pool::new(device.clone(), u64::MAX),
        weights: rows_of(&weights),
        files: weights,
        compute,
        programs: vec![uses.to_vec()],
        turning: Turning::default(),
        tile_target: TileTarget::Bytes(64 << 8),
        request: Request::Minimum,
        free: 0,
    })
    .unwrap();
    let kernels = [product(m, n, k), product(m, k, n)].map(|k| device.load(&k).unwrap());
    let sizes = [m * k, m * n, m * k].map(|count| count * 4);
    let values = sizes.map(|bytes| device.allocate(bytes).unwrap());
    let input = (0..m * k).flat_map(|i| ((i as f32).sin()).to_le_bytes());
    let dst = values[0].whole();
    let bytes = input.collect();
    device.submit(compute, Work::Write { dst, bytes }).unwrap();
    let (floor, total) = (streamer.floor(), streamer.total());
    let mut results = Vec::new();
    for i in 0..=6 {
        let budget = floor + (total - floor) * i / 6;
        streamer.set_budget(Request::Bytes(budget), 0).unwrap();
        for _ in 0..2 {
            let mut pass = streamer.begin(ProgramId(0)).unwrap();
            for (layer, executable) in kernels.iter().enumerate() {
                pass.next_use(|tiles| {
                    let (a, out) = (values[layer].whole(), values[layer + 1].whole());
                    let launch = Work::Launch {
                        executable: executable.clone(),
                        env: Env::default(),
                        args: vec![a, tiles.places[0].clone(), out],
                        tiles: vec![tiles],
                        scratch: None,
                    };
                    Ok::<(), Error>(device.submit(compute, launch)?)
                })
                .unwrap();
            }
            pass.finish().unwrap();
            let mut out = vec![0; sizes[2]];
            device.read(compute, &values[2].whole(), &mut out).unwrap();
            results.push(out);
        }
    }
    results
}

#[test]
fn products_have_the_same_bits_at_every_budget_and_in_both_modes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    write_f32(&path, &[("down", &[96, 700]), ("up", &[700, 96])]);
    for m in [1, 3, 17] {
        let all = [HostMode::Unified, HostMode::Discrete].map(|mode| results(&path, mode, m));
        let first = &all[0][0];
        assert!(first.chunks(4).any(|x| x != [0; 4]));
        for result in all.iter().flatten() {
            assert!(result == first, "other bits with {m} rows");
        }
    }
}
