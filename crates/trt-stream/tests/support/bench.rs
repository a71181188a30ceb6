//! Weights of several kinds, a device and a pool, and passes that copy the rows they are given.

#[path = "copying.rs"]
mod copying;

use crate::support::write_f32;
pub use copying::{Copier, Failure};
use std::sync::Arc;
use tempfile::TempDir;
use trt_alloc::Pool;
use trt_device::{Device, Host, HostMode, Memory, Stream};
use trt_kernel::{Role, Roles};
use trt_stream::{
    Config, Pass, ProgramId, Request, Streamer, TensorId, TileTarget, Turning, Use, Weight,
    WeightId, Weights,
};

pub const TENSORS: [(&str, &[usize]); 6] = [
    ("norm", &[96]),
    ("up", &[320, 48]),
    ("down", &[130, 96]),
    ("conv", &[40, 3, 25]),
    ("head", &[700, 32]),
    ("table", &[500, 16]),
];
pub const STREAMED: [&str; 4] = ["up", "down", "conv", "head"];

pub struct Bench {
    _dir: TempDir,
    pub device: Arc<dyn Device>,
    pub pool: Pool,
    pub weights: Arc<Weights>,
    pub compute: Stream,
    out: Memory,
}

impl Bench {
    pub fn new(mode: HostMode) -> Bench {
        Bench::with_limit(mode, u64::MAX)
    }

    pub fn with_limit(mode: HostMode, limit: u64) -> Bench {
        Bench::on(Arc::new(Host::new(mode)), limit)
    }

    pub fn on(device: Arc<dyn Device>, limit: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = write_f32(&dir.path().join("w.safetensors"), &TENSORS);
        let weights = Arc::new(Weights::open(path).unwrap());
        Bench {
            _dir: dir,
            compute: device.stream("compute").unwrap(),
            out: device.allocate(2 * weights.total_bytes() as usize).unwrap(),
            pool: Pool::new(device.clone(), limit),
            device,
            weights,
        }
    }

    /// Weights are numbered as the files have them.
    pub fn id(&self, name: &str) -> WeightId {
        WeightId(self.weights.find(name).unwrap().0)
    }

    pub fn uses_of(&self, names: &[&str]) -> Vec<Use> {
        names.iter().map(|n| self.id(n).into()).collect()
    }

    pub fn bytes(&self, name: &str) -> &[u8] {
        let id = self.weights.find(name).unwrap();
        self.weights.bytes(id).unwrap()
    }

    pub fn config(&self, programs: &[&[&str]], request: Request) -> Config {
        let role = |name: &str| match name {
            "norm" => Role::Whole,
            "table" => Role::Table,
            _ => Role::Rows,
        };
        let tensors = self.weights.iter();
        Config {
            pool: self.pool.clone(),
            files: self.weights.clone(),
            weights: tensors
                .map(|(_, info)| Weight::tensor(info, Roles::from(role(&info.name))))
                .collect(),
            compute: self.compute,
            programs: programs.iter().map(|p| self.uses_of(p)).collect(),
            turning: Turning::default(),
            tile_target: TileTarget::Bytes(12 << 10),
            request,
            free: 0,
        }
    }

    pub fn streamer(&self, request: Request) -> Streamer {
        Streamer::new(self.config(&[&STREAMED], request)).unwrap()
    }

    fn copier(&self) -> Copier<'_> {
        Copier {
            device: &*self.device,
            compute: self.compute,
            out: self.out.whole(),
        }
    }

    /// Copies every row that the pass launches to its place in a pass's output.
    pub fn uses(&self, pass: &mut Pass<'_>, stop_at: Option<usize>) -> Result<(), Failure> {
        let shape = |next: Use| {
            let info = self.weights.get(TensorId(next.weight.0)).unwrap();
            (info.rows(), info.bytes() / info.rows())
        };
        self.copier().uses(pass, shape, stop_at).map(|_| ())
    }

    /// A pass must compute exactly the weights.
    pub fn pass(&self, streamer: &mut Streamer, program: u32, names: &[&str]) {
        let mut pass = streamer.begin(ProgramId(program)).unwrap();
        self.uses(&mut pass, None).unwrap();
        pass.finish().unwrap();
        let bytes = names.iter().flat_map(|n| self.bytes(n));
        self.copier().check(&bytes.copied().collect::<Vec<u8>>());
    }
}

pub fn both(test: impl Fn(Bench)) {
    test(Bench::new(HostMode::Unified));
    test(Bench::new(HostMode::Discrete));
}

/// Budgets from the floor to the total.
pub fn budgets(streamer: &Streamer, count: u64) -> Vec<Request> {
    let (floor, total) = (streamer.floor(), streamer.total());
    let at = |i| Request::Bytes(floor + (total - floor) * i / count);
    (0..=count).map(at).collect()
}
