//! The index of a model in several files: which tensor is in which shard.
//!
//! The index decides, and it comes from others: its names are [`plain_name`]s before a shard is
//! looked for, and the shards are looked for below the index's own folder.

use super::{FileError, WeightsError, foreign, plain_name, read_regular};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The most bytes of an index, as many as the format allows a header: a real one has a hundred for
/// each tensor.
const LIMIT: u64 = 100_000_000;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The part of an index that matters.
#[derive(Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// An index that was read and checked.
#[derive(Clone)]
pub(crate) struct ShardIndex {
    pub path: PathBuf,
    /// Each shard once, in the order of their names.
    pub shards: Vec<Shard>,
    /// The shard of each tensor, by its place among the shards.
    pub tensors: BTreeMap<String, u32>,
}

/// A shard that an index names.
#[derive(Clone)]
pub(crate) struct Shard {
    /// Its name for messages.
    pub name: String,
    pub path: PathBuf,
    /// Its place among the opened files, if it exists.
    pub file: Option<u32>,
}

impl Shard {
    /// Whether there is something in its place. What is there but cannot be looked at is an error
    /// when it is opened.
    pub fn exists(&self) -> bool {
        match self.path.metadata() {
            Ok(_) => true,
            Err(e) => !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

impl ShardIndex {
    /// Reads an index and checks every name in it; opens nothing else.
    pub fn read(path: &Path) -> Result<ShardIndex, WeightsError> {
        let bad = |reason: String| WeightsError::BadIndex {
            path: path.to_path_buf(),
            reason,
        };
        let text = read_regular(path, LIMIT).map_err(|e| match e {
            FileError::TooLarge { .. } => bad(e.to_string()),
            other => WeightsError::file(path, other),
        })?;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
        let raw: RawIndex =
            serde_json::from_slice(text).map_err(|e| match foreign::kind(text) {
                Some(kind) if !text.trim_ascii_start().starts_with(b"{") => {
                    bad(format!("it is {kind}"))
                }
                _ => bad(e.to_string()),
            })?;
        let mut places: BTreeMap<&Path, u32> = BTreeMap::new();
        for (tensor, shard) in &raw.weight_map {
            let name =
                plain_name(shard).map_err(|e| bad(format!("the shard of {tensor:?}: {e}")))?;
            places.insert(name, 0);
        }
        if places.is_empty() {
            return Err(bad("its weight_map names no shard".into()));
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::with_capacity(places.len());
        for (name, place) in &mut places {
            *place = shards.len() as u32;
            shards.push(Shard {
                name: name.display().to_string(),
                path: dir.join(name),
                file: None,
            });
        }
        // Every name is plain, or this was not reached.
        let place = |shard: &str| plain_name(shard).ok().and_then(|n| places.get(n).copied());
        let tensors = raw.weight_map.iter();
        let tensors = tensors.filter_map(|(name, shard)| Some((name.clone(), place(shard)?)));
        Ok(ShardIndex {
            path: path.to_path_buf(),
            tensors: tensors.collect(),
            shards,
        })
    }

    /// That none of the shards exists.
    pub fn nothing(&self) -> WeightsError {
        let (tensor, shard) = self
            .tensors
            .first_key_value()
            .map_or_else(Default::default, |(tensor, at)| {
                (tensor.clone(), self.shards[*at as usize].name.clone())
            });
        WeightsError::MissingShard {
            index: self.path.clone(),
            shard,
            tensor,
        }
    }
}
