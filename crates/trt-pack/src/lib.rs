//! Lossless packing of 16-bit weights.
//!
//! The exponents of trained weights say little: of the 8 bits that bf16 spends on one, 2.6 are information. So a value is [split](Kind)
//! into a symbol, which a prefix [code](Code) writes in few bits, and a byte that is stored as it is; together about 10.6 bits for
//! 16. Every bit comes back, whatever it is.
//!
//! Rows are packed in [units](Packer) of some rows, each of which is unpacked with nothing but the weight's code, so a
//! streamer cuts a weight where it likes. Inside of a unit values lie in the order in which a product of few rows sums them
//! ([`Geometry`]): whoever multiplies reads one stream and unpacks in registers what it would have loaded.
//!
//! `docs/packing.md` says what the bytes are. The invariant: unpacking is defined for any bytes, reads none but those of the unit, and what was packed comes back.
//!
//! ```
//! use trt_pack::{Code, Counts, Geometry, Kind, Packer, Unpacker};
//!
//! // Two rows of 64 values of bf16: 1.0 and a few others.
//! let rows: Vec<u16> = (0..128).map(|i| 0x3f80 + i % 5).collect();
//! let mut counts = Counts::new(Kind::Bf16);
//! counts.add(&rows);
//! let code = Code::best(&counts).expect("there are values");
//! let geometry = Geometry::new(64, 8)?;
//!
//! let mut unit = Vec::new();
//! Packer::new(geometry, &code).pack(&rows, &mut unit)?;
//! let mut again = vec![0; rows.len()];
//! Unpacker::new(geometry, &code).unpack(&unit, &mut again)?;
//! assert_eq!(again, rows);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod argument;
mod bits;
mod code;
mod geometry;
mod lengths;
mod split;
mod unit;
mod words;

pub use argument::{TABLE_BYTES, argument, argument_bytes, place, unit_rows};
pub use code::{Arity, Code, CodeError, Counts};
pub use geometry::{Geometry, GeometryError, STREAMS};
pub use lengths::LONGEST;
pub use split::{Kind, PIECE};
pub use unit::{ALIGNMENT, Packer, UnitError, Unpacker, check};
