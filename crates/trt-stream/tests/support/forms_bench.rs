//! Weights in two forms, a device and a pool, and passes that copy the rows that they are given.

use crate::copying::{Copier, Failure};
use crate::made::{self, Made};
use std::sync::Arc;
use tempfile::TempDir;
use trt_alloc::Pool;
use trt_device::{Device, Host, HostMode, Memory, Stream};
use trt_kernel::{Role, Roles};
use trt_stream::{
    Config, Part, ProgramId, Request, Streamer, TileTarget, Turning, Use, Weight, WeightId, Weights,
};

pub const HEAD: WeightId = WeightId(1);
pub const MADE: [Made; 5] = [
    Made::new("up", [1, 320, 48], false),
    Made::new("head", [1, 700, 96], true),
    Made::new("plain experts", [4, 100, 24], false),
    Made::new("packed experts", [4, 150, 96], true),
    Made::new("norm", [1, 1, 96], false),
];

/// Everything once, of the experts only some, and the packed ones again.
pub fn program() -> Vec<Use> {
    let expert = |weight, expert| Use::expert(WeightId(weight), expert);
    vec![
        WeightId(0).into(),
        expert(3, 2),
        expert(3, 0),
        HEAD.into(),
        expert(2, 1),
        expert(3, 2),
        expert(2, 3),
    ]
}

pub struct Bench {
    _dir: TempDir,
    pub device: Arc<dyn Device>,
    pub pool: Pool,
    pub files: Arc<Weights>,
    pub weights: Vec<Weight>,
    pub compute: Stream,
    out: Memory,
}

impl Bench {
    pub fn new(mode: HostMode) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (files, mut weights) = made::write(&dir.path().join("w.safetensors"), &MADE);
        weights[1].roles.add(Role::Table);
        weights[4].roles = Roles::from(Role::Whole);
        let device: Arc<dyn Device> = Arc::new(Host::new(mode));
        Bench {
            _dir: dir,
            compute: device.stream("compute").unwrap(),
            out: device.allocate(4 << 20).unwrap(),
            pool: Pool::new(device.clone(), u64::MAX),
            device,
            files: Arc::new(files),
            weights,
        }
    }

    pub fn config(&self, programs: Vec<Vec<Use>>) -> Config {
        Config {
            pool: self.pool.clone(),
            files: self.files.clone(),
            weights: self.weights.clone(),
            compute: self.compute,
            programs,
            turning: Turning::default(),
            tile_target: TileTarget::Bytes(8 << 10),
            request: Request::Minimum,
            free: 0,
        }
    }

    pub fn streamer(&self) -> Streamer {
        Streamer::new(self.config(vec![program()])).unwrap()
    }

    pub fn copier(&self) -> Copier<'_> {
        Copier {
            device: &*self.device,
            compute: self.compute,
            out: self.out.whole(),
        }
    }

    pub fn copy(&self, streamer: &mut Streamer, program: u32) -> Result<(), Failure> {
        let mut pass = streamer.begin(ProgramId(program))?;
        let shape = |next: Use| {
            let made = MADE[next.weight.0 as usize];
            let rows = match next.part {
                Part::All => made.matrix.experts * made.matrix.rows,
                Part::Expert(_) => made.matrix.rows,
            };
            (rows, made.row_bytes())
        };
        self.copier().uses(&mut pass, shape, None)?;
        Ok(pass.finish()?)
    }

    /// A pass must hand out exactly the rows that its uses read, as they are held.
    pub fn pass(&self, streamer: &mut Streamer, program: u32, uses: &[Use]) {
        self.copy(streamer, program).unwrap();
        let mut expected = Vec::new();
        for next in uses {
            let made = MADE[next.weight.0 as usize];
            let held = made.held();
            let expert = held.len() / made.matrix.experts;
            expected.extend(match next.part {
                Part::All => &held[..],
                Part::Expert(e) => &held[e as usize * expert..(e as usize + 1) * expert],
            });
        }
        self.copier().check(&expected);
    }
}

pub fn both(test: impl Fn(Bench)) {
    test(Bench::new(HostMode::Unified));
    test(Bench::new(HostMode::Discrete));
}

pub fn budget(streamer: &Streamer, part: u64, of: u64) -> Request {
    let (floor, total) = (streamer.floor(), streamer.total());
    Request::Bytes(floor + (total - floor) * part / of)
}
