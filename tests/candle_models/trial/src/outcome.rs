//! What a trial found, as a text: a line for each file, with the reasons of those that do not type-check.

use crate::port::List;
use std::collections::BTreeMap;
use std::io::Result;
use std::path::Path;

/// Each file, with what the compiler says against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By file; none if it type-checks.
    pub files: BTreeMap<String, Vec<String>>,
}

/// Between the reasons of a file.
const BETWEEN: &str = "; ";

impl Outcome {
    /// What a trial has written.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Outcome> {
        let text = std::fs::read_to_string(path)?;
        let line = |line: &str| match line.split_once(": ") {
            Some((file, why)) => (
                file.to_string(),
                why.split(BETWEEN).map(String::from).collect(),
            ),
            None => (line.to_string(), Vec::new()),
        };
        Ok(Outcome {
            files: text.lines().map(line).collect(),
        })
    }

    /// The text that [`Outcome::read`] reads.
    pub fn text(&self) -> String {
        let line = |(file, why): (&String, &Vec<String>)| match why.is_empty() {
            true => format!("{file}\n"),
            false => format!("{file}: {}\n", why.join(BETWEEN)),
        };
        self.files.iter().map(line).collect()
    }

    /// The files that type-check.
    pub fn type_checks(&self) -> List {
        let good = self.files.iter().filter(|(_, why)| why.is_empty());
        good.map(|(file, _)| file.clone()).collect()
    }
}
