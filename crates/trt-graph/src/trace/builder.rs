//! Profiles by name: which runtime integers there are, and from what to what.

use super::profile::{Class, Profile};
use crate::Error;
use crate::ints::IntVar;
use std::ops::RangeInclusive;
use trt_kernel::Interval;

/// Builds a [`Profile`] of classes without a cache; [`Profile::builder`] makes one.
///
/// ```
/// use trt_graph::Profile;
///
/// // Batches of 1 to 8 sequences of 1 to 128 tokens, all in one class.
/// let encoder = Profile::builder()
///     .range("batch", 1..=8)
///     .range("length", 1..=128)
///     .build()?;
/// // Images whose sides are multiples of 8, from 64 to 1024: inputs have the shape
/// // `(1, 3, 8 * call.int("rows")?, 8 * call.int("columns")?)`.
/// let images = Profile::builder()
///     .range("rows", 8..=128)
///     .range("columns", 8..=128)
///     .build()?;
/// // What the model does differently for one is a class of its own; a call goes to the first that fits.
/// let split = Profile::builder()
///     .class("single")
///     .range("batch", 1..=1)
///     .class("several")
///     .range("batch", 2..=64)
///     .build()?;
/// assert_eq!(split.classes[1].name, "several");
/// # assert_eq!(encoder.classes[0].ints.len() + images.classes.len(), 3);
/// # Ok::<(), trt_graph::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ProfileBuilder {
    classes: Vec<Class>,
    /// What does not fit 64 bits: the integer and its range.
    unfit: Option<String>,
}

impl ProfileBuilder {
    /// Begins a class of calls; the ranges that follow are its own. Without any there is one class,
    /// `call`.
    pub fn class(mut self, name: &str) -> Self {
        self.classes.push(named(name));
        self
    }

    /// A runtime integer of the class and the values that it takes, both ends included. The model's step
    /// asks for it by [`Call::int`](crate::Call::int).
    pub fn range(mut self, name: &str, values: RangeInclusive<usize>) -> Self {
        let (min, max) = (*values.start(), *values.end());
        let range = i64::try_from(min).and_then(|min| {
            let max = i64::try_from(max)?;
            Ok(Interval { min, max })
        });
        if self.classes.is_empty() {
            self.classes.push(named("call"));
        }
        match (range, self.classes.last_mut()) {
            (Ok(range), Some(class)) => class.ints.push(IntVar {
                name: name.into(),
                range,
            }),
            _ => self.unfit = Some(format!("range {min}..={max} of {name}")),
        }
        self
    }

    /// The profile.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if a class has more integers than [`Var::MAX`](trt_kernel::Var::MAX), two of one
    /// name, or a range that is empty or above 2^48, or if two classes have one name.
    pub fn build(self) -> Result<Profile, Error> {
        if let Some(what) = self.unfit {
            return Err(Error::Profile(format!("{what} does not fit 64 bits")));
        }
        let mut classes = self.classes;
        if classes.is_empty() {
            classes.push(named("call"));
        }
        for (i, class) in classes.iter().enumerate() {
            class.check()?;
            if classes[..i].iter().any(|c| c.name == class.name) {
                let name = &class.name;
                return Err(Error::Profile(format!("two classes are called {name}")));
            }
        }
        Ok(Profile { classes })
    }
}

fn named(name: &str) -> Class {
    Class {
        name: name.into(),
        ints: Vec::new(),
        max_context: None,
    }
}
