//! What a streamer is told of a weight: its name, its rows, what it is read as, and where it lies.
//!
//! A weight is its values; a form is one way in which they are written in a file. Tables and
//! whole weights are read from the source; rows may be read from a second form, which is another
//! encoding or a packed one. The planner sees none of that but a [`Sheet`].

use super::Error;
use super::unpack::Unpack;
use crate::files::{FileId, TensorInfo, Weights};
use crate::plan::{Arrive, Sheet, TileForm, Units, WeightId};
use std::sync::Arc;
use trt_device::Residency;
use trt_kernel::{Encoding, Role, Roles};

/// A weight as a matrix: `[rows, columns]`, or as many of them as there are experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Matrices that lie one after another; 1 for a weight without experts.
    pub experts: usize,
    /// Rows of each.
    pub rows: usize,
    /// Values of a row.
    pub columns: usize,
}

/// One way in which a weight lies in a file.
#[derive(Clone, Debug)]
pub struct Form {
    /// What kernels read, once it is on the device.
    pub encoding: Encoding,
    /// The file.
    pub file: FileId,
    /// Its first byte there.
    pub start: usize,
    /// The units that its rows are packed in; none if rows lie one after another as kernels read
    /// them.
    pub units: Option<Arc<Units>>,
    /// What makes rows as kernels read them out of units, where they cannot read the units.
    pub unpack: Option<Arc<dyn Unpack>>,
}

/// A weight, what it is read as, and its forms.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name, for messages.
    pub name: Arc<str>,
    /// Its shape as a matrix.
    pub matrix: Matrix,
    /// What programs read it as.
    pub roles: Roles,
    /// The form in which it was given: what tables and whole weights are read from.
    pub source: Form,
    /// The form that rows are read from, if not the source. Where it packs the source's plain values
    /// and is held as it is stored, rows are read from either, as the budget has room
    /// ([`Weight::turns`]).
    pub second: Option<Form>,
}

/// How what lies in a file as kernels read it comes to them: the one place that asks a device.
pub(super) fn as_it_lies(residency: Residency) -> Arrive {
    match residency {
        Residency::InPlace => Arrive::Populate,
        Residency::Copied => Arrive::Upload,
    }
}

impl Form {
    /// Whether kernels read its units themselves, so that they are held as they are stored.
    fn held_as_stored(&self) -> bool {
        self.units.is_some() && self.unpack.is_none()
    }

    /// Bytes that it takes in its file, if they can be counted.
    fn stored(&self, matrix: &Matrix) -> Option<usize> {
        match &self.units {
            Some(units) => Some(units.end()),
            None => {
                let rows = matrix.experts.checked_mul(matrix.rows)?;
                rows.checked_mul(self.encoding.row_bytes(matrix.columns)?)
            }
        }
    }
}

impl Weight {
    /// A tensor of the files as it lies there: its first axis are the rows.
    pub fn tensor(info: &TensorInfo, roles: Roles) -> Weight {
        Weight {
            name: info.name.as_str().into(),
            matrix: Matrix {
                experts: 1,
                rows: info.rows(),
                columns: info.columns(),
            },
            roles,
            source: Form {
                encoding: info.encoding,
                file: info.file,
                start: info.range.start,
                units: None,
                unpack: None,
            },
            second: None,
        }
    }

    /// The form that is read in a role, in that of rows while not all weights are on the device.
    pub fn form(&self, role: Role) -> &Form {
        match role {
            Role::Rows => self.second.as_ref().unwrap_or(&self.source),
            Role::Table | Role::Whole => &self.source,
        }
    }

    /// Its forms, the source first.
    pub fn forms(&self) -> impl Iterator<Item = &Form> {
        std::iter::once(&self.source).chain(&self.second)
    }

    /// Bytes that the source takes in its file, and on a device where it is whole.
    ///
    /// # Errors
    /// If they cannot be counted.
    pub fn source_bytes(&self) -> Result<usize, Error> {
        let bytes = self.source.stored(&self.matrix);
        bytes.ok_or_else(|| self.uncountable(&self.source))
    }

    /// What the planner cuts: the form that rows are read from while anything streams, and whether they
    /// are read plain too.
    pub(super) fn sheet(&self, weight: WeightId, as_it_lies: Arrive) -> Result<Sheet, Error> {
        let form = self.form(Role::Rows);
        // Rows of what is packed have no bytes of their own: they are measured as the source's.
        let row_bytes = |form: &Form| form.encoding.row_bytes(self.matrix.columns);
        let row_bytes = row_bytes(form).or_else(|| match form.held_as_stored() {
            true => row_bytes(&self.source),
            false => None,
        });
        Ok(Sheet {
            weight,
            experts: self.matrix.experts,
            rows: self.matrix.rows,
            row_bytes: row_bytes.ok_or_else(|| self.uncountable(form))?,
            units: form.units.clone(),
            arrive: match form.unpack {
                Some(_) => Arrive::Unpack,
                None => as_it_lies,
            },
            turns: self.turns(),
        })
    }

    /// Whether rows may be read from both of its forms, with the same values: from one that is held
    /// packed, and from the source, which is plain.
    pub fn turns(&self) -> bool {
        let packed = self.second.as_ref().filter(|form| form.held_as_stored());
        let same = |packed: &Form| {
            let blocks = matches!(packed.encoding, Encoding::Blocks(_));
            !blocks && self.source.encoding.as_plain() == Some(packed.encoding.dtype())
        };
        packed.is_some_and(same) && self.source.units.is_none() && self.source.unpack.is_none()
    }

    /// The form that a tile of it is in.
    pub(super) fn form_of(&self, tile: TileForm) -> &Form {
        match tile {
            TileForm::Only | TileForm::Packed => self.form(Role::Rows),
            TileForm::Plain => &self.source,
        }
    }

    /// Checks that its forms lie inside of their files, and that its roles can be read from them.
    pub(super) fn check(&self, files: &Weights) -> Result<(), Error> {
        for form in self.forms() {
            let stored = form.stored(&self.matrix);
            let end = stored.and_then(|bytes| form.start.checked_add(bytes));
            let end = end.ok_or_else(|| self.uncountable(form))?;
            let file = files.files().get(form.file.0 as usize);
            let len = file.map_or(0, |f| f.map.len());
            if end > len {
                let start = form.start;
                return Err(self.form_error(format!(
                    "its bytes {start}..{end} are not in file {} of {len} bytes",
                    form.file.0
                )));
            }
        }
        let direct = self.roles.has(Role::Table) || self.roles.has(Role::Whole);
        if direct && (self.source.units.is_some() || self.source.unpack.is_some()) {
            let roles = self.roles;
            return Err(self.form_error(format!("its source is packed, and it is read as {roles}")));
        }
        Ok(())
    }

    fn uncountable(&self, form: &Form) -> Error {
        let Matrix {
            experts,
            rows,
            columns,
        } = self.matrix;
        let encoding = form.encoding;
        self.form_error(format!(
            "{experts} x {rows} rows of {columns} values cannot be {encoding}"
        ))
    }

    fn form_error(&self, what: String) -> Error {
        let name = self.name.to_string();
        Error::Form { name, what }
    }
}
