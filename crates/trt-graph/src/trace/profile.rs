//! What varies between calls, and how a model is stepped.

use super::builder::ProfileBuilder;
use super::parts::Split;
use crate::Error;
use crate::ints::{IntVar, PAST, Positions, SEQ};
use crate::mirror::Tensor;
use candle_core::DType;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use trt_kernel::{Interval, Var};

/// One class of calls: all runtime integers with their ranges, within which the model's control
/// flow is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// A name for reports, e.g. `decode`.
    pub name: String,
    /// The runtime integers; `Var(i)` is `ints[i]`.
    pub ints: Vec<IntVar>,
    /// `past + seq` never exceeds this.
    pub max_context: Option<i64>,
}

/// The calls that a compiled model serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The classes; a call goes to the first one that its integers fit.
    pub classes: Vec<Class>,
}

/// The largest value of a runtime integer: sizes made of several still fit 64 bits.
const LARGEST: i64 = 1 << 48;
/// The least `max_context` with a class for several tokens at once: tracing it takes two calls of
/// two tokens.
const LEAST_PREFILL: usize = 4;

impl Profile {
    /// Calls of a decoder with a cache: `past` tokens are cached, `seq` are new. One class serves
    /// single tokens, another 2 to `max_seq`; `past + seq` stays within `max_context`, and so does
    /// `max_seq`. Any two sizes from 1 on will do; tables of `max_context` rows are enough for
    /// everything that is traced. Without room for two calls of two tokens (`max_seq` of 1 or
    /// `max_context` below 4) there are only single tokens, in which prompts then run.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if a size is 0 or above 2^48.
    pub fn decoder(max_context: usize, max_seq: usize) -> Result<Profile, Error> {
        let mut profile = Profile::singles(max_context, max_seq)?;
        let max_seq = max_seq.min(max_context);
        if max_seq >= 2 && max_context >= LEAST_PREFILL {
            let prefill = class("prefill", max_context, (0, max_context - 2), (2, max_seq));
            profile.classes.push(prefill);
        }
        Ok(profile)
    }

    /// As [`decoder`](Self::decoder), but several tokens at once only where nothing is cached: for models whose
    /// code for many tokens (masks, convolutions) does not look at what came before. The rest of
    /// a prompt that is longer than `max_seq` runs token by token.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if a size is 0 or above 2^48.
    pub fn prompts_first(max_context: usize, max_seq: usize) -> Result<Profile, Error> {
        let mut profile = Profile::singles(max_context, max_seq)?;
        let max_seq = max_seq.min(max_context);
        if max_seq >= 2 {
            let prompt = class("prompt", max_context, (0, 0), (2, max_seq));
            profile.classes.push(prompt);
        }
        Ok(profile)
    }

    /// The same calls in more classes: each that has calls with this integer below `from` and others becomes two.
    /// For models that do something else from some value on, each class of which is then a program of
    /// its own; states are shared.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if no class has such calls.
    pub fn split(self, name: &str, from: i64) -> Result<Profile, Error> {
        let before = self.classes.len();
        let classes = self.classes.into_iter().flat_map(|c| c.parts(name, from));
        let classes: Vec<Class> = classes.collect();
        match classes.len() > before {
            true => Ok(Profile { classes }),
            false => Err(Error::Profile(format!(
                "no class has calls with {name} below {from} and others"
            ))),
        }
    }

    /// The same calls once these classes were split, one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if one of them is not there, or has no calls on both sides.
    pub fn apart(&self, splits: &[Split]) -> Result<Profile, Error> {
        let mut classes = self.classes.clone();
        for split in splits {
            let before = classes.len();
            let part = |class: Class| match class.name == split.class {
                true => class.parts(&split.int, split.from),
                false => vec![class],
            };
            classes = classes.into_iter().flat_map(part).collect();
            if classes.len() == before {
                return Err(Error::Profile(format!("it cannot be split: {split}")));
            }
        }
        Ok(Profile { classes })
    }

    /// The class of single tokens.
    fn singles(max_context: usize, max_seq: usize) -> Result<Profile, Error> {
        let fits = |n: usize| n > 0 && i64::try_from(n).is_ok_and(|n| n <= LARGEST);
        if !fits(max_seq) || !fits(max_context) {
            return Err(Error::Profile(format!(
                "a decoder needs max_seq (is {max_seq}) and max_context (is {max_context}) from 1 \
                 to {LARGEST}"
            )));
        }
        Ok(Profile {
            classes: vec![class("decode", max_context, (0, max_context - 1), (1, 1))],
        })
    }

    /// Names integers and classes one by one; see [`ProfileBuilder`].
    pub fn builder() -> ProfileBuilder {
        ProfileBuilder::default()
    }

    /// Calls without cache: each integer has a name and an inclusive range. An integer that no
    /// input's shape shows is given with each call.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if there are more than [`Var::MAX`] integers, two of one name, or a range
    /// that is empty, negative or above 2^48.
    pub fn single(ints: &[(&str, i64, i64)]) -> Result<Profile, Error> {
        let ints = ints
            .iter()
            .map(|(name, min, max)| IntVar {
                name: (*name).into(),
                range: Interval {
                    min: *min,
                    max: *max,
                },
            })
            .collect();
        let class = Class {
            name: "call".into(),
            ints,
            max_context: None,
        };
        class.check()?;
        Ok(Profile {
            classes: vec![class],
        })
    }
}

/// Calls with so many cached and so many new positions.
fn class(name: &str, context: usize, past: (usize, usize), seq: (usize, usize)) -> Class {
    let int = |name: &str, (min, max): (usize, usize)| IntVar {
        name: name.into(),
        range: Interval {
            min: min as i64,
            max: max as i64,
        },
    };
    Class {
        name: name.into(),
        ints: vec![int(PAST, past), int(SEQ, seq)],
        max_context: Some(context as i64),
    }
}

impl Class {
    /// The calls with an integer below `from` and the others, if there are both.
    fn parts(self, name: &str, from: i64) -> Vec<Class> {
        let of = self.ints.iter().position(|i| i.name == name);
        let range = of.map(|i| (i, self.ints[i].range));
        let Some((i, range)) = range.filter(|(_, r)| r.min < from && from <= r.max) else {
            return vec![self];
        };
        let part = |min: i64, max: i64| {
            let mut part = self.clone();
            part.ints[i].range = Interval { min, max };
            part.name = format!("{} {name} {min}..={max}", self.name);
            part
        };
        vec![part(range.min, from - 1), part(from, range.max)]
    }

    /// Whether its integers can be those of a program.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refused = |what: String| Err(Error::Profile(what));
        if self.ints.len() > Var::MAX {
            let (n, most) = (self.ints.len(), Var::MAX);
            return refused(format!(
                "{n} runtime integers; at most {most} are supported"
            ));
        }
        for (i, int) in self.ints.iter().enumerate() {
            let (name, Interval { min, max }) = (&int.name, int.range);
            if min < 0 || min > max || max > LARGEST {
                return refused(format!(
                    "range {min}..={max} of {name} is empty, negative or above {LARGEST}"
                ));
            }
            if self.ints[..i].iter().any(|o| o.name == *name) {
                return refused(format!("two runtime integers are called {name}"));
            }
        }
        match self.max_context {
            Some(n) if !(1..=LARGEST).contains(&n) => {
                refused(format!("a context of {n} is not from 1 to {LARGEST}"))
            }
            _ => Ok(()),
        }
    }

    /// Where the numbers of cached and new positions are; none if calls do not go on where the last
    /// one ended.
    pub fn positions(&self) -> Option<Positions> {
        Positions::of(&self.ints)
    }

    /// Whether a call's integers fit.
    pub fn accepts(&self, values: &[i64]) -> bool {
        let both = self.positions().and_then(|p| p.in_call(values));
        let fits = |limit: i64| both.is_none_or(|(past, seq)| past.saturating_add(seq) <= limit);
        values.len() == self.ints.len()
            && self.max_context.is_none_or(fits)
            && self
                .ints
                .iter()
                .zip(values)
                .all(|(i, v)| (i.range.min..=i.range.max).contains(v))
    }

    /// How many calls it has, where no context bounds them together.
    pub(super) fn calls(&self) -> Option<u64> {
        let values = |i: &IntVar| u64::try_from(i.range.max - i.range.min + 1).ok();
        let mut each = self.ints.iter().map(values);
        let all = each.try_fold(1u64, |n, values| n.checked_mul(values?));
        all.filter(|_| self.max_context.is_none())
    }

    /// A call's integers by name: `past=5 seq=2`.
    pub fn describe(&self, values: &[i64]) -> String {
        let parts: Vec<String> = self
            .ints
            .iter()
            .zip(values)
            .map(|(i, v)| format!("{}={v}", i.name))
            .collect();
        parts.join(" ")
    }
}

/// One traced call: where the model's step finds its integers and inputs.
pub struct Call<'a> {
    class: &'a Class,
    values: Vec<i64>,
    pub(crate) inputs: RefCell<Vec<(String, Tensor)>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(class: &'a Class, values: Vec<i64>) -> Self {
        Call {
            class,
            values,
            inputs: RefCell::default(),
        }
    }

    /// The value of a runtime integer at this sample point.
    ///
    /// # Errors
    ///
    /// If the profile has no integer of this name.
    pub fn int(&self, name: &str) -> candle_core::Result<usize> {
        match self.class.ints.iter().position(|i| i.name == name) {
            Some(i) => Ok(self.values[i] as usize),
            None => {
                let known: Vec<&str> = self.class.ints.iter().map(|i| i.name.as_str()).collect();
                candle_core::bail!("no runtime integer '{name}' in the profile (it has {known:?})")
            }
        }
    }

    /// The numbers of cached and of new positions at this sample point.
    ///
    /// # Errors
    ///
    /// As [`Call::int`], if the profile is not of a decoder.
    pub fn positions(&self) -> candle_core::Result<(usize, usize)> {
        Ok((self.int(PAST)?, self.int(SEQ)?))
    }

    /// Declares an input of the call. Inputs are given to a compiled call in the order in which
    /// they are declared here.
    ///
    /// # Errors
    ///
    /// If the dtype is not supported or the shape too large.
    #[track_caller]
    pub fn input<S: Into<candle_core::Shape>>(
        &self,
        name: &str,
        shape: S,
        dtype: DType,
    ) -> candle_core::Result<Tensor> {
        let mut inputs = self.inputs.borrow_mut();
        if let Some((_, t)) = inputs.iter().find(|(n, _)| n == name) {
            return Ok(t.clone());
        }
        let tensor = Tensor::input(inputs.len() as u32, shape.into(), dtype)?;
        inputs.push((name.into(), tensor.clone()));
        Ok(tensor)
    }
}

/// A loaded model that can be stepped. Closures `FnMut(&Call) -> Result<Vec<Tensor>>` are steps;
/// models of `trt-models` implement it.
pub trait Step {
    /// Declares the call's inputs, runs the model and returns its outputs. What the model keeps
    /// for its next call becomes a state of the program.
    ///
    /// # Errors
    ///
    /// What the model's code fails with.
    fn step(&mut self, call: &Call<'_>) -> candle_core::Result<Vec<Tensor>>;
}

impl<F: FnMut(&Call<'_>) -> candle_core::Result<Vec<Tensor>>> Step for F {
    fn step(&mut self, call: &Call<'_>) -> candle_core::Result<Vec<Tensor>> {
        self(call)
    }
}
