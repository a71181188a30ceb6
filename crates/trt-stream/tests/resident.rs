//! On unified memory the process maps no more of the weights than the budget.
#![cfg(target_os = "linux")]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{rows_of, write_f32};
use trt_alloc::Pool;
use trt_device::{Device, Host, Work};
use trt_kernel::{ROW_PANEL, Role};
use trt_stream::{
    Config, Error, Form, ProgramId, Request, Streamer, TileTarget, Turning, Units, Weight,
    WeightId, Weights,
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

/// Runs passes at these budgets: at no time the process maps more than each allows, or the one before
/// while the copy stream has yet to let go of what that had.
fn held_to(
    path: &Path,
    files: &Arc<Weights>,
    weights: Vec<Weight>,
    budgets: impl Fn(&Streamer) -> Vec<Request>,
) {
    let device: Arc<dyn Device> = Arc::new(Host::unified());
    let compute = device.stream("compute").unwrap();
    let out = device.allocate(files.total_bytes() as usize).unwrap();
    let mut streamer = Streamer::new(Config {
        pool: Pool::new(device.clone(), u64::MAX),
        files: files.clone(),
        compute,
        programs: vec![
            (0..weights.len() as u32)
                .map(|w| WeightId(w).into())
                .collect(),
        ],
        weights,
        turning: Turning::default(),
        tile_target: TileTarget::Automatic,
        request: Request::Minimum,
        free: 0,
    })
    .unwrap();
    let mut before = 0;
    for request in budgets(&streamer) {
        let applied = streamer.set_budget(request, 0).unwrap();
        let tiles = streamer.layout().tiling().len() as u64;
        let slots = applied.ring / streamer.layout().tiling().largest().max(1);
        let held = applied.used() + tiles * EDGES + slots * 2 * REACH;
        let mut most = held.max(before) + 2 * REACH;
        for _ in 0..2 {
            let mut pass = streamer.begin(ProgramId(0)).unwrap();
            while pass.upcoming().is_some() {
                pass.next_use(|tiles| {
                    let src = tiles.places[0].clone();
                    let dst = out.whole().slice(0..src.len())?;
                    device.submit(compute, Work::Copy { dst, src })?;
                    device.synchronize(compute)?;
                    let found = resident(path);
                    assert!(found <= most, "{found} > {most} at {request}");
                    Ok::<(), Error>(())
                })
                .unwrap();
            }
            pass.finish().unwrap();
            assert!(streamer.reset().is_empty());
            let found = resident(path);
            assert!(found <= held, "{found} > {held} at rest at {request}");
            most = held + 2 * REACH;
        }
        before = held;
    }
    drop(streamer);
    // Ends what is still queued.
    drop(device);
    assert_eq!(resident(path), 0, "a dropped streamer holds nothing");
}

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
    let files = Arc::new(Weights::open(&path).unwrap());
    held_to(&path, &files, rows_of(&files), |_| {
        let requests = ["min", "25%", "full", "50%", "min"];
        requests.map(|r| r.parse().unwrap()).to_vec()
    });
}

#[test]
fn pages_of_the_form_that_is_not_read_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let plain = [("a", 4096), ("b", 2048), ("c", 4096)];
    let packed = [("a.packed", 2048), ("b.packed", 1024), ("c.packed", 2048)];
    let shapes: Vec<[usize; 2]> = plain.iter().chain(&packed).map(|t| [t.1, 768]).collect();
    let names = plain.iter().chain(&packed).map(|t| t.0);
    let tensors: Vec<(&str, &[usize])> = names.zip(shapes.iter().map(|s| &s[..])).collect();
    write_f32(&path, &tensors);
    let files = Arc::new(Weights::open(&path).unwrap());
    let info = |name| files.get(files.find(name).unwrap()).unwrap();
    let two = plain
        .iter()
        .zip(&packed)
        .map(|((plain, rows), (packed, _))| {
            let (source, packed) = (info(*plain), info(*packed));
            let unit = ROW_PANEL * 768 * 2;
            let offsets = (0..=rows / ROW_PANEL).map(|i| i * unit).collect();
            let mut weight = Weight::tensor(source, Role::Rows.into());
            weight.second = Some(Form {
                start: packed.range.start,
                units: Some(Arc::new(Units::new(ROW_PANEL, offsets).unwrap())),
                ..weight.source.clone()
            });
            weight
        });
    held_to(&path, &files, two.collect(), |streamer| {
        let limits = streamer.layout().limits();
        let (floor, still, total) = (limits.floor(), limits.still(), limits.total);
        let middle = (still + total) / 2;
        let budgets = [
            floor,
            still,
            middle,
            total,
            middle,
            still,
            still / 2,
            total,
            floor,
        ];
        budgets.map(Request::Bytes).to_vec()
    });
}
