//! Packed rows: each thread unpacks a unit and multiplies by what it has unpacked, which is a plain weight's rows.
//!
//! So an output has the bits of the product by the plain weight, by the row-range law, and what is unpacked is never more
//! than a unit for each thread (about 1 MiB, 64 rows at least).

use super::MatmulCall;
use crate::host::HostError;
use crate::host::scratch;
use crate::host::span::{Args, Raw};
use crate::host::team::Team;
use crate::{Encoding, PackedType};
use std::ops::Range;
use trt_pack::{Unpacker, argument_bytes, place, unit_rows};

/// The units of a launch.
struct Units<'a> {
    unpacker: Unpacker,
    /// The packed bytes, from the first unit of the launch on.
    bytes: &'a [u8],
    /// Where the weight's units are.
    argument: &'a [u8],
    /// Rows of a unit.
    rows: usize,
}

impl MatmulCall<'_> {
    pub(super) fn packed(&self, packed: PackedType, team: &Team) -> Result<(), HostError> {
        let units = self.units(packed)?;
        let first = self.n.start / units.rows;
        let end = self.n.end.div_ceil(units.rows);
        team.try_run(end - first, |part| {
            let unit = first + part;
            let rows = unit * units.rows..((unit + 1) * units.rows).min(self.n.end);
            self.unit(&units, unit, rows, team)
        })
    }

    fn units(&self, packed: PackedType) -> Result<Units<'_>, HostError> {
        let (args, b) = (&self.call.args, self.kernel.b.arg);
        let rows = unit_rows(self.k);
        let (all, Range { start, end }) = (self.kernel.n.size(self.call.env), self.n.clone());
        if !start.is_multiple_of(rows) || !(end.is_multiple_of(rows) || end == all) {
            return Err(HostError::Rows {
                start,
                end,
                n: all,
                why: "packed rows are cut between units",
            });
        }
        let code = self.kernel.code();
        let code = code.expect("a kernel that was checked has what unpacks its weight");
        let argument = args.whole(code);
        let wanted = argument_bytes(all.div_ceil(rows)).unwrap_or(usize::MAX);
        let short = || HostError::OutOfBounds {
            arg: code.0,
            dtype: Encoding::Code.dtype(),
            first: 0,
            last: (wanted / Encoding::Code.bytes()) as i64 - 1,
            bytes: argument.len(),
        };
        let there = (argument.len() >= wanted).then_some(());
        let unpacker = there.and_then(|()| {
            let kinds = (packed.kind(), packed.arity());
            Unpacker::of_argument(packed.geometry(self.k)?, kinds, argument)
        });
        Ok(Units {
            unpacker: unpacker.ok_or_else(short)?,
            bytes: args.whole(b),
            argument,
            rows,
        })
    }

    /// The outputs of one unit's rows.
    fn unit(
        &self,
        units: &Units<'_>,
        unit: usize,
        rows: Range<usize>,
        team: &Team,
    ) -> Result<(), HostError> {
        let b = self.kernel.b.arg;
        let wrong = |why: String| HostError::Packed {
            arg: b.0,
            unit,
            why,
        };
        let [base, start, end] =
            [self.n.start / units.rows, unit, unit + 1].map(|unit| place(units.argument, unit));
        let place = base.zip(start).zip(end);
        let range = place.and_then(|((base, start), end)| {
            Some(start.checked_sub(base)?..end.checked_sub(base)?)
        });
        let found = units.bytes.len();
        let bytes = range.clone().and_then(|range| units.bytes.get(range));
        let bytes = bytes.ok_or_else(|| wrong(format!("{range:?} is not in its {found} bytes")))?;
        let values = rows.len() * self.k;
        scratch::with(values.div_ceil(2), |unpacked| {
            let unpacked: &mut [u16] = &mut bytemuck::cast_slice_mut(unpacked)[..values];
            let done = units.unpacker.unpack(bytes, unpacked);
            done.map_err(|error| wrong(error.to_string()))?;
            self.plain(b.0 as usize, unpacked, rows, team)
        })
    }

    /// The outputs of rows that were unpacked. Inside of a part, so this thread does all of it.
    fn plain(
        &self,
        b: usize,
        unpacked: &mut [u16],
        rows: Range<usize>,
        team: &Team,
    ) -> Result<(), HostError> {
        let args = &self.call.args;
        let mut spans = args.spans.to_vec();
        let mut encodings = args.encodings.to_vec();
        spans[b] = Raw::from_mut(unpacked);
        encodings[b] = Encoding::Plain(encodings[b].dtype());
        let mut call = MatmulCall {
            call: crate::host::exec::BodyCall {
                args: Args {
                    spans: &spans,
                    encodings: &encodings,
                },
                ..self.call
            },
            n: rows,
            ..*self
        };
        // The span starts at the first of these rows.
        call.b.offset = -(call.n.start as i64) * call.b.strides[1];
        call.by_rows(team)
    }
}
