//! A launch on its way through the fusions.

use crate::program::{BufferId, Launch, Source};
use std::fmt;

/// A launch with its level: one more than the highest level that it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Leveled {
    /// Launches of one level may come in any order.
    pub level: usize,
    /// The launch.
    pub launch: Launch,
    /// The ops that it computes, for the report.
    pub ops: Vec<String>,
}

impl Leveled {
    /// The buffers that it reads. What is written may be read first by the same argument.
    pub(super) fn reads(&self) -> Vec<BufferId> {
        let args = self.launch.args.iter();
        args.filter_map(|s| buffer(*s)).collect()
    }

    /// The buffers that it writes, in the order of its arguments.
    pub(super) fn writes(&self) -> Vec<BufferId> {
        let outputs = self.launch.kernel.written();
        let args = self.launch.args.iter().zip(0u16..);
        let written = args.filter(|(_, i)| outputs.iter().any(|a| a.0 == *i));
        written.filter_map(|(s, _)| buffer(*s)).collect()
    }
}

fn buffer(source: Source) -> Option<BufferId> {
    match source {
        Source::Buffer(b) => Some(b),
        Source::Weight(_) => None,
    }
}

impl fmt::Display for Leveled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.launch)
    }
}
