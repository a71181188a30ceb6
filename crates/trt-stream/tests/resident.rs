//! On unified memory the process maps no more of the weights than the budget.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{rows_of, write_f32};
use trt_alloc::Pool;
use trt_device::{Device, Host, Work};
use trt_stream::{
    Config, Error, ProgramId, Request, Streamer, TileTarget, Turning, WeightId, Weights,
};

/// Bytes of a file's mapping that this process holds.
fn resident(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut kib = 0;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('-') {
            ours = line.ends_with(path.to_str().unwrap());
        } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| ours) {
            let number = rss.trim().trim_end_matches(" kB");
            kib += number.trim().parse::<u64>().unwrap();
        }
    }
    kib << 10
}

/// A fault maps what the page cache holds in one piece. What streams by keeps it until it is let
/// go, at both ends of each tile; residents let it go at once.
const REACH: u64 = 2 << 20;
/// Pages that a tile shares with its neighbours.
const EDGES: u64 = 2 * 4096;

#[test]
fn mapped_pages_stay_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    write_f32(
        &path,
        &[
            ("a", &[2048, 768]),
            ("b", &[4096, 768]),
            ("c", &[2048, 768]),
        ],
    );
    let weights = Arc::new(Weights::open(&path).unwrap());
    let device: Arc<dyn Device> = Arc::new(Host::unified());
    let compute = device.stream("compute").unwrap();
    let out = device.allocate(weights.total_bytes() as usize).unwrap();
    let mut streamer = Streamer::new(Config {
        pool: Pool::new(device.clone(), u64::MAX),
        weights: rows_of(&weights),
        files: weights.clone(),
        compute,
        programs: vec![weights.ids().map(|id| WeightId(id.0).into()).collect()],
        turning: Turning::default(),
        tile_target: TileTarget::Automatic,
        request: Request::Minimum,
        free: 0,
    })
    .unwrap();
    for request in ["min", "25%", "full", "50%", "min"] {
        let applied = streamer.set_budget(request.parse().unwrap(), 0).unwrap();
        let tiles = streamer.layout().tiling().len() as u64;
        let slots = applied.ring / streamer.layout().tiling().largest().max(1);
        let held = applied.used() + tiles * EDGES + slots * 2 * REACH;
        for _ in 0..2 {
            let mut pass = streamer.begin(ProgramId(0)).unwrap();
            while pass.upcoming().is_some() {
                pass.next_use(|tiles| {
                    let src = tiles.places[0].clone();
                    let dst = out.whole().slice(0..src.len())?;
                    device.submit(compute, Work::Copy { dst, src })?;
                    device.synchronize(compute)?;
                    let found = resident(&path);
                    assert!(found <= held + 2 * REACH, "{found} > {held} at {request}");
                    Ok::<(), Error>(())
                })
                .unwrap();
            }
            pass.finish().unwrap();
            assert!(streamer.reset().is_empty());
            let found = resident(&path);
            assert!(found <= held, "{found} > {held} at rest at {request}");
        }
    }
    drop(streamer);
    // Ends what is still queued.
    drop(device);
    assert_eq!(resident(&path), 0, "a dropped streamer holds nothing");
}
