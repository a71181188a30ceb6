//! Weights of several kinds, a device and a pool, and passes that copy the rows they are given.

use crate::support::write_f32;
use std::sync::Arc;
use tempfile::TempDir;
use trt_alloc::Pool;
use trt_device::{Device, Host, HostMode, Memory, Stream, Work};
use trt_kernel::{Role, Roles};
use trt_stream::{
    Config, Error, Pass, ProgramId, Request, Streamer, TileTarget, Use, Weight, WeightId, Weights,
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

/// What went wrong in a pass of these tests.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Stream(#[from] Error),
    #[error("asked to stop")]
    Asked,
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
            tile_target: TileTarget::Bytes(12 << 10),
            request,
            free: 0,
        }
    }

    pub fn streamer(&self, request: Request) -> Streamer {
        Streamer::new(self.config(&[&STREAMED], request)).unwrap()
    }

    /// Copies every row that the pass launches to its place in a pass's output.
    pub fn uses(&self, pass: &mut Pass<'_>, stop_at: Option<usize>) -> Result<(), Failure> {
        let mut at = 0;
        let mut launches = 0;
        while let Some(next) = pass.upcoming() {
            let mut infos = self.weights.iter();
            let (_, info) = infos.nth(next.weight.0 as usize).unwrap();
            let row = info.bytes() / info.rows();
            let mut next_row = 0;
            pass.next_use(|tiles| {
                if Some(launches) == stop_at {
                    return Err(Failure::Asked);
                }
                launches += 1;
                assert_eq!(tiles.rows.start, next_row, "rows come in order");
                for (rows, slice) in tiles.each() {
                    assert_eq!(slice.len(), rows.len() * row);
                    next_row = rows.end;
                    let dst = self.out.whole();
                    let dst = dst.slice(at + rows.start * row..at + rows.end * row);
                    let work = Work::Copy {
                        dst: dst.unwrap(),
                        src: slice.clone(),
                    };
                    self.device.submit(self.compute, work).unwrap();
                }
                Ok(())
            })?;
            assert_eq!(next_row, info.rows(), "every row was launched");
            at += info.bytes();
        }
        Ok(())
    }

    /// A pass must compute exactly the weights.
    pub fn pass(&self, streamer: &mut Streamer, program: u32, names: &[&str]) {
        let mut pass = streamer.begin(ProgramId(program)).unwrap();
        self.uses(&mut pass, None).unwrap();
        pass.finish().unwrap();
        let expected: Vec<u8> = names.iter().flat_map(|n| self.bytes(n).to_vec()).collect();
        let mut found = vec![0; expected.len()];
        let out = self.out.whole().slice(0..found.len()).unwrap();
        self.device.read(self.compute, &out, &mut found).unwrap();
        assert!(found == expected, "a pass computed other bits");
        // What an earlier pass left must not pass for this one's result.
        let blank = Work::Write {
            dst: out,
            bytes: vec![0xAA; found.len()],
        };
        self.device.submit(self.compute, blank).unwrap();
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
