//! GGUF files: a model's tensors, most of them in blocks, and what the file says of the model.
//!
//! A file is mapped like any other and only its header is read. Who wrote it is not trusted: what is opened takes memory
//! in proportion to its header, and whatever its header says ends in tensors that lie in the file or in an error that
//! names file, value or tensor, and numbers.
//!
//! | file | what it knows |
//! |---|---|
//! | `input`, `value`, `header` | how bytes are laid out |
//! | `kinds` | types of tensors by their number |
//! | `metadata` | values by name, read when they are asked for |
//! | `split` | models in several files |
//! | `config` | what they say, as Hugging Face's `config.json` |
//! | `names` | what Hugging Face calls the tensors, and what the converter made of them |

mod config;
mod header;
mod input;
mod kinds;
mod metadata;
mod names;
mod split;
mod value;

pub use metadata::Metadata;
pub use names::{RowOrder, View};
pub use value::{Array, Kind, Value};

pub(crate) use config::{Held, json as config_json};
pub(crate) use header::MAGIC;
pub(crate) use names::Names;
pub(crate) use split::models;

use super::WeightsError;
use super::file::{File, Opened};
use split::Part;
use std::path::Path;

/// The parts of a model, and what the first says of it.
pub(crate) struct Model {
    pub files: Vec<File>,
    pub metadata: Metadata,
}

/// Opens the model that a GGUF file is, or is a part of. `open` opens and maps another file.
pub(crate) fn model(
    opened: Opened,
    open: impl Fn(&Path) -> Result<Opened, WeightsError>,
) -> Result<Model, WeightsError> {
    let (file, metadata) = read(opened)?;
    let Some(part) = Part::of(&metadata)? else {
        return Ok(Model {
            files: vec![file],
            metadata,
        });
    };
    let paths = part.paths(&file.path, &metadata)?;
    let missing = paths.clone().find(|p| p.symlink_metadata().is_err());
    if let Some(missing) = missing {
        return Err(WeightsError::MissingPart {
            file: file.path,
            part: missing,
            count: part.count,
        });
    }
    let (mut own, mut first) = (Some(file), metadata);
    let mut files = Vec::new();
    for (number, path) in paths.enumerate() {
        if let Some(own) = own.take_if(|_| number == part.number) {
            files.push(own);
            continue;
        }
        let (file, metadata) = read(open(&path)?)?;
        part.agrees(number, &metadata)?;
        files.push(file);
        if number == 0 {
            first = metadata;
        }
    }
    let metadata = first;
    let found = files.iter().map(|f| f.tensors.len()).sum();
    part.counted(found, &metadata)?;
    Ok(Model { files, metadata })
}

fn read(opened: Opened) -> Result<(File, Metadata), WeightsError> {
    let header = header::parse(&opened.path, &opened.map)?;
    let metadata = Metadata::new(opened.path.clone(), opened.map.clone(), header.fields);
    Ok((opened.with(header.tensors), metadata))
}
