//! Where weights are in the mappings of their files.

use super::weight::{Weight, as_it_lies};
use super::{Error, Packed, Unpack};
use crate::files::{WeightFile, Weights};
use crate::plan::{Arrive, Tile, TileForm, WeightId};
use std::ops::Range;
use std::sync::Arc;
use trt_device::{Device, Memory, Paging, Slice};
use trt_kernel::{Role, Roles};

/// The weights, and the files that they lie in.
#[derive(Debug)]
pub(super) struct Sources {
    weights: Vec<Weight>,
    as_it_lies: Arrive,
    /// The files as resident tiles and gathers read them.
    files: Vec<Memory>,
    /// The files again, as streamed tiles are read in place.
    passing: Vec<Memory>,
}

impl Sources {
    /// Maps the files.
    pub fn new(
        device: &dyn Device,
        files: &Weights,
        weights: Vec<Weight>,
    ) -> Result<Sources, Error> {
        let kept =
            |f: &WeightFile| device.map(&f.path, f.file.clone(), f.map.clone(), Paging::Exact);
        let passing =
            |f: &WeightFile| device.map(&f.path, f.file.clone(), f.passing.clone(), Paging::Coarse);
        Ok(Sources {
            weights,
            as_it_lies: as_it_lies(device.info().residency),
            files: files.files().iter().map(kept).collect::<Result<_, _>>()?,
            passing: files
                .files()
                .iter()
                .map(passing)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether kernels read mappings in place, so that their pages come and go here.
    pub fn in_place(&self) -> bool {
        self.as_it_lies == Arrive::Populate
    }

    /// A weight that has a role.
    pub fn in_role(&self, id: WeightId, role: Role) -> Result<&Weight, Error> {
        let weight = self.weights.get(id.0 as usize);
        let weight = weight.ok_or(Error::UnknownWeight {
            id,
            count: self.weights.len(),
        })?;
        match weight.roles.has(role) {
            true => Ok(weight),
            false => Err(Error::not_in_role(weight, role)),
        }
    }

    /// The weights that have a role.
    pub fn with(&self, role: Role) -> impl Iterator<Item = (WeightId, &Weight)> {
        let all = self.weights.iter().enumerate();
        let has = move |roles: Roles| roles.has(role);
        all.filter(move |(_, w)| has(w.roles))
            .map(|(i, w)| (WeightId(i as u32), w))
    }

    /// The source of a weight, whole.
    pub fn whole(&self, weight: &Weight) -> Result<Slice, Error> {
        let start = weight.source.start;
        // One memory per file, in order; forms were checked to lie in their files.
        let file = &self.files[weight.source.file.0 as usize];
        Ok(file.whole().slice(start..start + weight.source_bytes()?)?)
    }

    /// Bytes of a form of a weight, where resident tiles are read in place and copies come from.
    pub fn kept(&self, from: (WeightId, TileForm), span: &Range<usize>) -> Result<Slice, Error> {
        self.part(&self.files, from, span)
    }

    /// The same, where streamed tiles are read in place.
    pub fn passing(&self, from: (WeightId, TileForm), span: &Range<usize>) -> Result<Slice, Error> {
        self.part(&self.passing, from, span)
    }

    fn part(
        &self,
        files: &[Memory],
        (weight, form): (WeightId, TileForm),
        span: &Range<usize>,
    ) -> Result<Slice, Error> {
        let form = self.in_role(weight, Role::Rows)?.form_of(form);
        let file = &files[form.file.0 as usize];
        let span = form.start + span.start..form.start + span.end;
        Ok(file.whole().slice(span)?)
    }

    /// What unpacks a tile, if it is unpacked.
    pub fn unpacker(&self, tile: &Tile) -> Result<Option<Arc<dyn Unpack>>, Error> {
        let weight = self.in_role(tile.weight, Role::Rows)?;
        Ok(weight.form_of(tile.form).unpack.clone())
    }

    /// A tile that lies in staging memory, and is to be unpacked to where it is held.
    pub fn packed(&self, tile: &Tile, stored: Slice, held: Slice) -> Result<Packed<'_>, Error> {
        let weight = self.in_role(tile.weight, Role::Rows)?;
        let units = weight.form(Role::Rows).units.as_ref();
        Ok(Packed {
            rows: tile.rows.clone(),
            offsets: units.map_or(&[], |u| u.around(tile.rows.clone(), weight.matrix.rows)),
            stored,
            held,
        })
    }

    /// Whether every file is as long as when it was opened.
    pub fn intact(&self) -> Result<(), Error> {
        // Both mappings of a file are of the same file.
        Ok(self.files.iter().try_for_each(Memory::intact)?)
    }

    /// The mapped files.
    pub fn all(&self) -> impl Iterator<Item = Slice> + '_ {
        self.files.iter().chain(&self.passing).map(Memory::whole)
    }
}
