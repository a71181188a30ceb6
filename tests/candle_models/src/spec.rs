//! What is said of a case beside the code that loads and calls its model: inputs, sizes and calls, as data.

use candle_trt::Profile;
use candle_trt::graph::Error;

/// One size of an input.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// Always the same.
    Of(usize),
    /// What the call says under this name.
    Named(&'static str),
    /// So many times that.
    Times(usize, &'static str),
}

/// What an input is filled with.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Tokens below a number, in u32.
    Tokens(u32),
    /// Numbers from -1 to 1, in f32.
    Noise,
    /// The same number everywhere, in f32.
    All(f32),
    /// The same number everywhere, in u32.
    Same(u32),
    /// 1 for what is kept and 0 for what is not, in u32; the first of a row is kept.
    Kept,
}

/// One input of a model.
#[derive(Clone, Debug)]
pub struct Input {
    pub name: &'static str,
    pub shape: Vec<Size>,
    pub values: Values,
}

/// A way of calling a model: what varies, and the calls that are compared.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: &'static str,
    pub varies: Varies,
    /// Names of sizes that do not vary here.
    pub fixed: Vec<(&'static str, usize)>,
}

/// What varies between the calls of a way.
#[derive(Clone, Debug)]
pub enum Varies {
    /// The calls of a decoder; each list is a session, given as the new tokens of its calls.
    Positions {
        context: usize,
        longest: usize,
        sessions: Vec<Vec<usize>>,
        /// Values of `past` and `seq` from which on code does something else, so that classes are split there.
        split: Vec<(&'static str, i64)>,
    },
    /// Named sizes with their ranges; each list is a call, with a value for each.
    Sizes {
        ranges: Vec<(&'static str, i64, i64)>,
        calls: Vec<Vec<usize>>,
    },
}

/// One call: its sizes by name, and the position of its first token.
#[derive(Clone, Debug, Default)]
pub struct Called {
    pub sizes: Vec<(&'static str, usize)>,
    pub past: usize,
}

/// The name of a decoder's new tokens among sizes.
pub const SEQ: &str = "seq";
/// The name of the size that images, or texts, are numbered by.
pub const BATCH: &str = "batch";

impl Size {
    /// The size, where `named` tells what names stand for.
    pub fn of<E>(self, named: impl Fn(&str) -> Result<usize, E>) -> Result<usize, E> {
        Ok(match self {
            Size::Of(n) => n,
            Size::Named(name) => named(name)?,
            Size::Times(by, name) => by * named(name)?,
        })
    }

    /// Whether the size is the number of images or texts.
    pub fn is_batch(self) -> bool {
        matches!(self, Size::Named(BATCH))
    }
}

impl Called {
    /// What a name stands for in this call.
    pub fn size(&self, name: &str) -> usize {
        let found = self.sizes.iter().find(|(n, _)| *n == name);
        found
            .unwrap_or_else(|| panic!("no size '{name}' in a call"))
            .1
    }
}

impl Way {
    /// The profile that its calls are of.
    ///
    /// # Errors
    ///
    /// If the sizes make no profile.
    pub fn profile(&self) -> Result<Profile, Error> {
        match &self.varies {
            Varies::Positions {
                context,
                longest,
                sessions,
                split,
            } => {
                // Several tokens at once only where nothing is cached, if no call has them elsewhere.
                let single = |calls: &Vec<usize>| calls.iter().skip(1).all(|new| *new == 1);
                let profile = match sessions.iter().all(single) {
                    true => Profile::prompts_first(*context, *longest),
                    false => Profile::decoder(*context, *longest),
                }?;
                let split_at = |p: Profile, (name, from): &(&str, i64)| p.split(name, *from);
                split.iter().try_fold(profile, split_at)
            }
            Varies::Sizes { ranges, .. } => Profile::single(ranges),
        }
    }

    /// Its calls, in the sessions that they are made in.
    pub fn sessions(&self) -> Vec<Vec<Called>> {
        let with = |sizes: Vec<(&'static str, usize)>, past| Called {
            sizes: [self.fixed.clone(), sizes].concat(),
            past,
        };
        match &self.varies {
            Varies::Positions { sessions, .. } => {
                let session = |calls: &Vec<usize>| {
                    let past = |i: usize| calls[..i].iter().sum();
                    let call = |(i, new): (usize, &usize)| with(vec![(SEQ, *new)], past(i));
                    calls.iter().enumerate().map(call).collect()
                };
                sessions.iter().map(session).collect()
            }
            Varies::Sizes { ranges, calls } => {
                let names = || ranges.iter().map(|r| r.0);
                let call = |values: &Vec<usize>| {
                    vec![with(names().zip(values.iter().copied()).collect(), 0)]
                };
                calls.iter().map(call).collect()
            }
        }
    }
}
