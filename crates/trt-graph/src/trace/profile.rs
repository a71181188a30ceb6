//! What varies between calls, and how a model is stepped.

use crate::Error;
use crate::graph::IntVar;
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

/// The largest `past` at which models are sampled; what holds up to here is taken to hold up to
/// the end of the profile.
const SAMPLED_PAST: i64 = 4608;
/// The longest sequence of one call while a sample point's state is built up.
pub(crate) const WARM_UP: i64 = 512;

impl Profile {
    /// Calls of a decoder with a cache: `past` tokens are cached, `seq` are new. One class serves
    /// single tokens, another 2 to `max_seq`; `past + seq` stays within `max_context`.
    pub fn decoder(max_context: usize, max_seq: usize) -> Result<Profile, Error> {
        if max_seq < 2 || max_context < max_seq + 4 {
            return Err(Error::Profile(format!(
                "a decoder needs max_seq of 2 or more (is {max_seq}) and max_context of at least \
                 max_seq + 4 (is {max_context})"
            )));
        }
        let int = |name: &str, min: usize, max: usize| IntVar {
            name: name.into(),
            range: Interval {
                min: min as i64,
                max: max as i64,
            },
        };
        let class = |name: &str, past: usize, low: usize, high: usize| Class {
            name: name.into(),
            ints: vec![int("past", 0, past), int("seq", low, high)],
            max_context: Some(max_context as i64),
        };
        Ok(Profile {
            classes: vec![
                class("decode", max_context - 1, 1, 1),
                class("prefill", max_context - 2, 2, max_seq),
            ],
        })
    }

    /// Calls without cache: each integer has a name and an inclusive range.
    pub fn single(ints: &[(&str, i64, i64)]) -> Result<Profile, Error> {
        if ints.len() > Var::MAX {
            return Err(Error::Profile(format!(
                "{} runtime integers; at most {} are supported",
                ints.len(),
                Var::MAX
            )));
        }
        if let Some((name, min, max)) = ints.iter().find(|(_, min, max)| *min < 0 || min > max) {
            return Err(Error::Profile(format!(
                "range {min}..={max} of {name} is empty or negative"
            )));
        }
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
        Ok(Profile {
            classes: vec![Class {
                name: "call".into(),
                ints,
                max_context: None,
            }],
        })
    }
}

impl Class {
    /// The index of `past`, the number of cached positions, if calls have one.
    pub(crate) fn past(&self) -> Option<usize> {
        self.ints.iter().position(|i| i.name == "past")
    }

    /// The index of `seq`, the number of new positions.
    pub(crate) fn seq(&self) -> Option<usize> {
        self.ints.iter().position(|i| i.name == "seq")
    }

    /// Whether a call's integers fit.
    pub fn accepts(&self, values: &[i64]) -> bool {
        let total = self
            .past()
            .zip(self.seq())
            .map(|(p, s)| values.get(p).zip(values.get(s)));
        let fits = |limit: i64| total.flatten().is_none_or(|(p, s)| p + s <= limit);
        values.len() == self.ints.len()
            && self.max_context.is_none_or(fits)
            && self
                .ints
                .iter()
                .zip(values)
                .all(|(i, v)| (i.range.min..=i.range.max).contains(v))
    }

    /// The calls at which a model is traced: points that determine every affine function of the
    /// varying integers, one more that verifies it, and the corners of the profile where bounds
    /// and windows show.
    pub fn sample_points(&self) -> Result<Vec<Vec<i64>>, Error> {
        let past = self.past();
        let seq_min = self.seq().map_or(0, |s| self.ints[s].range.min);
        // A state is only visible if an earlier call of the same class made it.
        let low = |i: usize| {
            let r = self.ints[i].range;
            match past == Some(i) {
                true => (r.min.max(seq_min + 1), r.max.min(SAMPLED_PAST)),
                false => (r.min, r.max),
            }
        };
        let base: Vec<i64> = (0..self.ints.len()).map(|i| low(i).0).collect();
        let mut points = vec![base.clone()];
        for i in 0..self.ints.len() {
            let (min, max) = low(i);
            for step in [1, 3] {
                if min + step <= max {
                    let mut p = base.clone();
                    p[i] = min + step;
                    points.push(p);
                }
            }
            if max > min + 3 {
                let mut p = base.clone();
                p[i] = max;
                points.push(p);
            }
            if min > max {
                return Err(Error::Profile(format!(
                    "{} has no value to sample in {min}..={max}",
                    self.ints[i].name
                )));
            }
        }
        let joint: Vec<i64> = (0..self.ints.len())
            .map(|i| (low(i).0 + 2).min(low(i).1))
            .collect();
        points.push(joint);
        points.sort();
        points.dedup();
        Ok(points)
    }

    /// A call without anything cached, if the class has such calls.
    pub(crate) fn first_call(&self) -> Option<Vec<i64>> {
        let past = self.past().filter(|p| self.ints[*p].range.min == 0)?;
        let mut values: Vec<i64> = self.ints.iter().map(|i| i.range.min).collect();
        values[past] = 0;
        self.seq().map(|_| values)
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
    pub fn int(&self, name: &str) -> candle_core::Result<usize> {
        match self.class.ints.iter().position(|i| i.name == name) {
            Some(i) => Ok(self.values[i] as usize),
            None => {
                let known: Vec<&str> = self.class.ints.iter().map(|i| i.name.as_str()).collect();
                candle_core::bail!("no runtime integer '{name}' in the profile (it has {known:?})")
            }
        }
    }

    /// Declares an input of the call. Inputs are given to a compiled call in the order in which
    /// they are declared here.
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
    fn step(&mut self, call: &Call<'_>) -> candle_core::Result<Vec<Tensor>>;
}

impl<F: FnMut(&Call<'_>) -> candle_core::Result<Vec<Tensor>>> Step for F {
    fn step(&mut self, call: &Call<'_>) -> candle_core::Result<Vec<Tensor>> {
        self(call)
    }
}
