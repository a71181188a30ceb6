//! A GGUF model in several files: each says which part it is, and all of them are opened or none.
//!
//! What a file says decides, and its name must agree: `NAME-00002-of-00003.gguf` is part 1 (from 0) of 3. So the names of
//! the other parts follow from any one of them, and nothing that a file says becomes a path.

use super::super::WeightsError;
use super::metadata::Metadata;
use std::path::{Path, PathBuf};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";
const END: &str = ".gguf";
/// The most parts: names have five digits.
const MOST: usize = 99_999;

/// Which part of how many a file says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 0.
    pub number: usize,
    pub count: usize,
    /// Tensors of all parts, where it says.
    pub tensors: Option<usize>,
}

impl Part {
    /// What a file's metadata say; none for a model in one file.
    pub fn of(metadata: &Metadata) -> Result<Option<Part>, WeightsError> {
        let count = match metadata.count(COUNT)? {
            None | Some(0 | 1) => return Ok(None),
            Some(count) => count,
        };
        if count > MOST {
            return Err(metadata.bad(COUNT, format!("{count} parts are more than {MOST}")));
        }
        let number = metadata.count(NUMBER)?;
        let number = number.ok_or_else(|| metadata.missing(NUMBER))?;
        if number >= count {
            let reason = format!("part {number}, counted from 0, is not one of {count}");
            return Err(metadata.bad(NUMBER, reason));
        }
        Ok(Some(Part {
            number,
            count,
            tensors: metadata.count(TENSORS)?,
        }))
    }

    /// Where all parts are, by the name of this one.
    pub fn paths(
        &self,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<impl Iterator<Item = PathBuf> + Clone + use<>, WeightsError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (number, count) = (self.number + 1, self.count);
        let end = format!("-{number:05}-of-{count:05}{END}");
        let Some(stem) = name.strip_suffix(&end) else {
            let reason = format!("it is part {number} of {count}, so its name must end in '{end}'");
            return Err(metadata.bad(COUNT, reason));
        };
        let (stem, path) = (stem.to_string(), path.to_path_buf());
        let part = move |i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}{END}"));
        Ok((1..=count).map(part))
    }

    /// That another file, which has the name of part `number`, says the same of itself.
    pub fn agrees(&self, number: usize, metadata: &Metadata) -> Result<(), WeightsError> {
        let expected = Part { number, ..*self };
        match Part::of(metadata)? {
            Some(found) if found == expected => Ok(()),
            Some(found) => {
                let key = match () {
                    () if found.count != expected.count => COUNT,
                    () if found.number != expected.number => NUMBER,
                    () => TENSORS,
                };
                let reason = format!(
                    "it says {found}, and by the other parts and its name it is {expected}"
                );
                Err(metadata.bad(key, reason))
            }
            None => Err(metadata.missing(COUNT)),
        }
    }

    /// That there are as many tensors as the parts say.
    pub fn counted(&self, found: usize, metadata: &Metadata) -> Result<(), WeightsError> {
        match self.tensors {
            Some(stated) if stated != found => {
                let reason = format!("it is {stated}, and the parts have {found} tensors");
                Err(metadata.bad(TENSORS, reason))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "part {} of {}", self.number + 1, self.count)?;
        match self.tensors {
            Some(tensors) => write!(f, " with {tensors} tensors in all"),
            None => Ok(()),
        }
    }
}

/// The models among these names: names that are the first part of one stand for all of it.
pub(crate) fn models(names: &[String]) -> Vec<&String> {
    let first = |name: &str| {
        let number = split_name(name).map(|(_, number, _)| number);
        number.is_none_or(|number| number == 1)
    };
    let alone = |name: &str| match split_name(name) {
        // A part without the first is a model that cannot be opened, which is an error to come.
        Some((stem, _, count)) => !names.contains(&format!("{stem}-00001-of-{count:05}{END}")),
        None => false,
    };
    let files = names.iter().filter(|n| n.ends_with(END));
    let mut models: Vec<&String> = files.filter(|n| first(n) || alone(n)).collect();
    // One part stands for those beside it.
    models.dedup_by(|a, b| match (split_name(a), split_name(b)) {
        (Some((a, _, n)), Some((b, _, m))) => (a, n) == (b, m),
        _ => false,
    });
    models
}

/// The stem, the number from 1 and the count of a part's name.
fn split_name(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.strip_suffix(END)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    match digits(number) && digits(count) {
        true => Some((stem, number.parse().ok()?, count.parse().ok()?)),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_model_are_one_model() {
        let models_of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
            models(&names).into_iter().cloned().collect::<Vec<_>>()
        };
        let parts = [
            "a-00001-of-00002.gguf",
            "a-00002-of-00002.gguf",
            "config.json",
        ];
        assert_eq!(models_of(&parts), parts[..1]);
        let cut = ["a-00002-of-00003.gguf", "a-00003-of-00003.gguf"];
        assert_eq!(models_of(&cut), cut[..1]);
        let two = ["a-Q4_K_M.gguf", "a-Q8_0.gguf"];
        assert_eq!(models_of(&two), two);
        assert_eq!(models_of(&["a-1-of-2.gguf", "x.bin"]), ["a-1-of-2.gguf"]);
    }
}
