//! What the emulator finds wrong, and where.

use std::fmt;

/// A rule that a kernel broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("not in the subset: {0}")]
    Text(String),
    #[error("the launch breaks a limit: {0}")]
    Launch(String),
    #[error("{register} is read before it is written")]
    Register { register: String },
    #[error("{bytes} bytes at {space} {address:#x} are outside of {nearest}")]
    Bounds {
        space: &'static str,
        address: u64,
        bytes: usize,
        nearest: Box<str>,
    },
    #[error("{bytes} bytes at {space} {address:#x} ({place}) are misaligned")]
    Misaligned {
        space: &'static str,
        address: u64,
        bytes: usize,
        place: Box<str>,
    },
    #[error("{place} is written but is read-only")]
    ReadOnly { place: Box<str> },
    #[error("{place} is read but nothing was written there")]
    Unwritten { place: Box<str> },
    #[error("{place} is used while an asynchronous access by thread {by} is under way")]
    Pending { place: Box<str>, by: u32 },
    #[error("race at {place}: {what} by thread {by}, with nothing to order them")]
    Race {
        place: Box<str>,
        what: &'static str,
        by: u32,
    },
    #[error("{what} needs the whole warp, but only lanes {active:#010x} of {alive:#010x} are here")]
    Divergent {
        what: &'static str,
        active: u32,
        alive: u32,
    },
    #[error("lane {lane} does not take part, but {what} needs it")]
    Lane { lane: u32, what: &'static str },
    #[error("no thread can go on: {0}")]
    Deadlock(String),
    #[error("{0}")]
    Wrong(String),
}

/// A broken rule and the place: which line of which entry, run by which thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmuError {
    pub entry: Box<str>,
    pub line: u32,
    pub text: Box<str>,
    pub block: Option<[u32; 3]>,
    pub thread: Option<u32>,
    pub why: Why,
}

impl EmuError {
    /// An error in the text itself.
    pub fn text(line: u32, why: Why) -> EmuError {
        EmuError {
            entry: Box::default(),
            line,
            text: Box::default(),
            block: None,
            thread: None,
            why,
        }
    }

    /// Adds the line as written.
    pub fn with_source(mut self, source: &str) -> EmuError {
        let line = source.lines().nth((self.line as usize).saturating_sub(1));
        self.text = line.unwrap_or_default().trim().into();
        self
    }
}

impl fmt::Display for EmuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}: `{}`", self.entry, self.line, self.text)?;
        if let Some([x, y, z]) = self.block {
            write!(f, " block ({x}, {y}, {z})")?;
        }
        if let Some(t) = self.thread {
            write!(f, " thread {t}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for EmuError {}
