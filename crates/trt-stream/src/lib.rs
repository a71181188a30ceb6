//! Weights that stream: where they are on disk, what of them a budget keeps on the device, and
//! how the rest arrives in time.
//!
//! [`Weights`] maps safetensors and GGUF files and reads nothing but their headers; who wrote the
//! files is not trusted. Weights that are used as ranged matmul operands are cut into row [`Tile`]s; by the row-range law of
//! `trt-kernel` any mixture of places gives the same bits. A [`Request`] (bytes, a share,
//! `auto`, `full`, `min`) is resolved to a budget; a [`Layout`] turns the budget into a
//! [`Split`]: which tiles stay, and the ring of slots through which the others go. A
//! [`Cycle`] is one pass over a program's weights as plain data, and [`simulate`] proves
//! it without a device. The [`Streamer`] makes it happen.
//!
//! The words:
//! - A *weight* ([`Weight`]) is its values: a matrix `[rows, columns]`, or one for each expert. A
//!   program uses all of it or one expert ([`Use`]).
//! - A *form* ([`Form`]) is one way in which they are written: an encoding, a place in a file, and
//!   perhaps units that are packed there. A weight has its source, and may have a second form that
//!   rows are read from.
//! - A *role* ([`trt_kernel::Role`]) is what a weight is read as: `Rows` may be cut and streamed,
//!   a `Table` is gathered through the mapping, what is needed `Whole` is always on the device.
//!   Tables and whole weights are read from the source.
//! - A *tile* ([`Tile`]) is some rows of a weight, of one expert, in a form. What is `stored` of it
//!   crosses the link, what is `held` fills the budget, and it [arrives](Arrive) by being copied, read
//!   in place, or unpacked. Where nothing is packed, stored and held are the same bytes.
//! - Rows whose second form packs the plain source and is read as it is stored may be read from
//!   either. They are packed while anything streams; then they *turn* plain, all weights of a launch
//!   together ([`Turning`]), as far as the budget has room.
//! - A *lane* ([`Lane`]) is who multiplies a tile: a device.
//!
//! Three rooms: `files` knows no plan; `plan` is data and functions of it, and knows neither files
//! nor devices; `run` makes a plan happen.
//!
//! The ideas that carry it:
//! - A pass is a cyclic scan, so a fixed set stays and the rest streams in execution order.
//!   The set is a prefix of one fixed order at every budget: changing the budget moves only the
//!   difference, and streamed bytes never grow with it.
//! - Fetches run as far ahead as the ring allows and wrap around into the next pass.
//! - Only events order fetches and launches; the host never waits inside a pass.
//!
//! First the plan, which needs no device:
//!
//! ```
//! use trt_stream::{Case, Layout, Sheet, TileTarget, Tiling, WeightId, simulate};
//!
//! // Two weights of 256 rows x 1 KiB, in tiles of 64 rows, used one after the other.
//! let (up, down) = (WeightId(0), WeightId(1));
//! let sheet = |weight| Sheet::plain(weight, 256, 1024);
//! let tiling = Tiling::cut(&[sheet(up), sheet(down)], TileTarget::Bytes(64 << 10))?;
//! let uses = vec![up.into(), down.into()];
//! let layout = Layout::new(tiling, &[uses.clone()], 0);
//! assert_eq!(layout.limits().floor(), 128 << 10); // two slots of the largest tile
//!
//! let budget = 256 << 10; // half
//! let split = layout.split(budget);
//! let cycle = layout.cycle(&split, &uses);
//! println!("{cycle}");
//! let case = Case {
//!     tiling: layout.tiling(),
//!     uses: &uses,
//!     together: &[],
//!     pinned: 0,
//!     split: &split,
//!     cycle: &cycle,
//!     budget,
//! };
//! let account = simulate(&case, 3)?;
//! assert_eq!(account.streamed, (512 << 10) - split.resident_bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Then a pass on a device. The closure submits the kernel for a run of rows; here it copies
//! them:
//!
//! ```
//! # use std::sync::Arc;
//! # use trt_alloc::Pool;
//! # use trt_device::{Device, Host, Work};
//! # use trt_kernel::Role;
//! # use trt_stream::{
//! #     Config, Error, ProgramId, Streamer, TileTarget, Turning, Weight, WeightId, Weights,
//! # };
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("model.safetensors");
//! # let header = r#"{"w":{"dtype":"F32","shape":[512,64],"data_offsets":[0,131072]}}"#;
//! # let header = format!("{header:72}");
//! # let mut bytes = 72u64.to_le_bytes().to_vec();
//! # bytes.extend_from_slice(header.as_bytes());
//! # bytes.extend((0..131072).map(|i| (i % 251) as u8));
//! # std::fs::write(&path, bytes)?;
//! let files = Arc::new(Weights::open(&path)?);
//! let w = files.find("w")?;
//! let info = files.get(w).ok_or("there is one")?;
//! let device: Arc<dyn Device> = Arc::new(Host::unified());
//! let compute = device.stream("compute")?;
//! let mut streamer = Streamer::new(Config {
//!     pool: Pool::new(device.clone(), 1 << 20),
//!     files: files.clone(),
//!     weights: vec![Weight::tensor(info, Role::Rows.into())],
//!     compute,
//!     programs: vec![vec![WeightId(0).into()]],
//!     turning: Turning::default(),
//!     tile_target: TileTarget::Bytes(16 << 10),
//!     request: "min".parse()?,
//!     free: 0,
//! })?;
//! let out = device.allocate(131072)?;
//! for budget in ["min", "50%", "full"] {
//!     let applied = streamer.set_budget(budget.parse()?, 0)?;
//!     assert!(applied.used() <= applied.applied);
//!     let mut pass = streamer.begin(ProgramId(0))?;
//!     pass.next_use(|tiles| {
//!         for (rows, src) in tiles.each() {
//!             let dst = out.whole().slice(rows.start * 256..rows.end * 256)?;
//!             device.submit(compute, Work::Copy { dst, src: src.clone() })?;
//!         }
//!         Ok::<(), Error>(())
//!     })?;
//!     pass.finish()?;
//!     let mut found = vec![0; 131072];
//!     device.read(compute, &out.whole(), &mut found)?;
//!     assert_eq!(Some(&found[..]), files.bytes(w));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod files;
mod plan;
mod run;

pub use files::{
    Array, Copies, Derivation, Derive, FileError, FileId, KeepError, Kind, Made, Metadata,
    NameError, PackOptions, PackedRows, Packing, RowOrder, Store, StoreError, TensorId, TensorInfo,
    Value, View, WeightFile, Weights, WeightsError, WithDerived, keep, open_regular, plain_name,
    read_regular,
};
pub use plan::{
    Account, Applied, Arrive, BelowFloors, BudgetError, Case, Costs, Cycle, Demand, Gain, Granted,
    Group, Lane, Layout, Limits, MIN_SLOTS, ParseRequestError, Part, Percent, Prediction, Rates,
    Request, Runs, STAGES, Shares, Sheet, SheetError, Slot, SlotBytes, Split, Step, Tile, TileForm,
    TileId, TileTarget, Tiling, Timed, Turning, Units, Use, UseIndex, Violation, WeightId, Why,
    share, simulate,
};
pub use run::{
    Config, Error, Form, Matrix, Packed, Pass, ProgramId, Streamer, Traffic, Unpack, Uses, Weight,
};
