//! How a sample point's cached positions come about.
//!
//! A point is *reached* by calls of the model, whose own constants (masks that model code builds
//! element by element) then add up to the square of the positions. So beyond some bytes of them it
//! is *set*: the tensors that the model keeps between calls are told another length, in proportion
//! to what one call adds to them, and the call at the point sees a cache of that length.
//!
//! That is the same to a model which keeps nothing but tensors. One that also counts positions in
//! a field of its own goes wrong at once: a point near the start is traced both ways
//! ([`super::trace`]), and where the graphs differ, points are only reached, or refused by name.

use super::profile::Class;
use crate::Error;
use crate::ints::Positions;
use crate::mirror::recorder::Made;

/// The longest sequence of one call on a long way; calls on a short one are of the class.
const LONGEST: i64 = 512;
/// The positions of a short way.
const SHORT: i64 = 64;
/// Bytes that calls on the way to a point may record, where the rest of the way can be set.
const CHEAP: u64 = 64 << 20;
/// Bytes that calls on the way to a point may record, where it cannot.
const MOST: u64 = 256 << 20;

/// How a point is come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The call alone: nothing is cached, or there is no cache.
    Alone,
    /// All positions by calls.
    Reached,
    /// So many calls of the class at its shortest; the rest is set.
    Set(i64),
    /// By calls as far as that is cheap, the last ones so many at the class's shortest; the rest is
    /// set.
    Both(i64),
    /// As `Both`, by calls of the class alone.
    Steps(i64),
}

/// What is done next on the way to a point.
pub(super) enum Stage {
    /// A call with these integers.
    Call(Vec<i64>),
    /// What the last call keeps gets `by` positions more (or fewer); it had `seq` new ones.
    Resize { by: i64, seq: i64 },
}

/// A way to one point, stage by stage; the point's own call comes last.
pub(super) struct Journey<'a> {
    class: &'a Class,
    point: &'a [i64],
    way: Way,
    /// Positions that the calls so far have made, and whether the last was of the class's shortest.
    position: i64,
    ready: bool,
    ended: bool,
    /// Where the last calls on a way that was too long begin their end.
    last_calls: Option<i64>,
}

impl Way {
    pub(super) fn to<'a>(self, class: &'a Class, point: &'a [i64]) -> Journey<'a> {
        Journey {
            class,
            point,
            way: self,
            position: 0,
            ready: false,
            ended: false,
            last_calls: None,
        }
    }
}

impl Journey<'_> {
    /// The next stage, from what was recorded so far; none after the point's own call.
    pub(super) fn next(&mut self, made: &Made) -> Result<Option<Stage>, Error> {
        let Some(Positions { past, seq }) = self.class.positions() else {
            return Ok(self.last());
        };
        let target = self.point[past];
        if self.way == Way::Alone || self.ended || self.ready && self.position == target {
            return Ok(self.last());
        }
        let shortest = self.class.ints[seq].range.min;
        if self.ready {
            let by = target - self.position;
            self.position = target;
            return Ok(Some(Stage::Resize { by, seq: shortest }));
        }
        // The last call on the way is of the class, so what it keeps is where the point's call
        // keeps it.
        let short = match self.way {
            Way::Set(calls) | Way::Both(calls) | Way::Steps(calls) => (calls - 1).max(1) * shortest,
            Way::Alone | Way::Reached => shortest,
        };
        let rest = target - short - self.position;
        let over = |most: u64| made.bytes > most;
        let long = target > SHORT && !matches!(self.way, Way::Steps(_));
        let longest = match long {
            true => LONGEST,
            false => self.class.ints[seq].range.max,
        };
        let step = match self.way {
            Way::Set(_) => (self.position < short).then_some(shortest),
            Way::Both(_) | Way::Steps(_) if rest > 0 && !over(CHEAP) => Some(rest.min(longest)),
            Way::Both(_) | Way::Steps(_) => {
                let last = *self
                    .last_calls
                    .get_or_insert(self.position + short - shortest);
                (self.position < last).then_some(shortest)
            }
            Way::Reached if rest > 0 && over(MOST) => return Err(self.too_far(made)),
            Way::Alone | Way::Reached => (rest > 0).then(|| rest.min(longest)),
        };
        self.ready = step.is_none();
        let step = step.unwrap_or(shortest);
        let call = self.at(past, seq, self.position, step);
        self.position += step;
        Ok(Some(Stage::Call(call)))
    }

    fn last(&mut self) -> Option<Stage> {
        let first = !std::mem::replace(&mut self.ended, true);
        first.then(|| Stage::Call(self.point.to_vec()))
    }

    fn at(&self, past: usize, seq: usize, p: i64, s: i64) -> Vec<i64> {
        let mut values = self.point.to_vec();
        (values[past], values[seq]) = (p, s);
        values
    }

    fn too_far(&self, made: &Made) -> Error {
        Error::TooFar {
            point: self.class.describe(self.point),
            reached: self.position,
            bytes: made.bytes,
            most: MOST,
        }
    }
}

impl Class {
    /// How many bytes a model with a mask of a byte for each query and key records on the way to
    /// the end of the cached positions.
    pub fn walked_bytes(&self) -> u64 {
        let most = self.positions().map(|p| self.ints[p.past].range.max);
        let most = most.and_then(|m| u64::try_from(m).ok()).unwrap_or(0);
        (most.saturating_mul(most) / 2).min(CHEAP)
    }

    /// The point that is traced both ways, to learn whether the model keeps nothing but tensors;
    /// none where the context has no room for it. So many calls go before it.
    pub(super) fn trial(&self, calls: i64) -> Option<Vec<i64>> {
        let Positions { past, seq } = self.positions()?;
        let mut point: Vec<i64> = self.ints.iter().map(|i| i.range.min).collect();
        point[past] = point[seq].checked_mul(calls + 1)?;
        self.accepts(&point).then_some(point)
    }
}
