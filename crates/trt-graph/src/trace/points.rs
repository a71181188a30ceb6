//! The calls at which a class is traced.
//!
//! *Near* points determine every affine function of the runtime integers, and verify it. Where a
//! size is no such function, *joint* points, at which several integers differ from the least, determine
//! products, and *runs* of consecutive values of each integer show floors with all their remainders,
//! with scattered points among them at which several integers have any remainders together, and the *last*
//! steps of each range.
//! *Far* points are the corners of the profile, where bounds, windows and branches of
//! the model's own code show, and the middle of long ranges. All are calls that the class accepts.
//!
//! What that guarantees: whatever begins at some value of an integer and holds from there to the
//! end of its range is there at a corner, so it is traced or refused. What begins *and* ends
//! between two points is not seen.

use super::profile::Class;
use super::sizes;
use crate::Error;
use crate::ints::Positions;

/// Ranges of more values than this have their middle sampled.
const LONG: i64 = 1000;

/// The calls at which a class is traced, without repeats.
pub(super) struct Points {
    pub near: Vec<Vec<i64>>,
    /// Only where the near ones do not determine a size.
    pub joint: Vec<Vec<i64>>,
    /// Only where those do not either; each run is the one before it, and as long again.
    pub runs: Vec<Vec<Vec<i64>>>,
    pub far: Vec<Vec<i64>>,
    /// The last steps of each range, where there are floors.
    pub last: Vec<Vec<i64>>,
}

/// Steps of the shortest run; in the longest each period is seen twice.
const RUN: i64 = 16;

impl Class {
    /// The calls at which a model is traced, each of which the class accepts.
    ///
    /// # Errors
    ///
    /// [`Error::Profile`] if the class accepts no call.
    pub fn sample_points(&self) -> Result<Vec<Vec<i64>>, Error> {
        let points = self.points(1)?;
        Ok([points.near, points.far].concat())
    }

    /// The points at which a state is visible; it takes `least` cached positions for that.
    pub(super) fn points(&self, least: i64) -> Result<Points, Error> {
        self.check()?;
        let ranges: Vec<(i64, i64)> = (0..self.ints.len()).map(|i| self.range(i, least)).collect();
        if let Some(i) = ranges.iter().position(|(min, max)| min > max) {
            let (min, max) = ranges[i];
            return Err(Error::Profile(format!(
                "{} has no value to sample in {min}..={max}",
                self.ints[i].name
            )));
        }
        let base: Vec<i64> = ranges.iter().map(|r| r.0).collect();
        let with = |i: usize, value: i64| {
            let mut point = base.clone();
            point[i] = value;
            point
        };
        let mut near = vec![base.clone()];
        let mut far = Vec::new();
        for (i, (min, max)) in ranges.iter().enumerate() {
            let steps = [1, 3].into_iter().map(|step| min + step);
            near.extend(steps.filter(|v| v <= max).map(|v| with(i, v)));
            if max - min > LONG {
                far.push(with(i, min + (max - min) / 2));
            }
        }
        near.push(
            ranges
                .iter()
                .map(|(min, max)| (min + 2).min(*max))
                .collect(),
        );
        for corner in 0..1usize << ranges.len() {
            let end = |(i, r): (usize, &(i64, i64))| if corner >> i & 1 == 1 { r.1 } else { r.0 };
            far.push(ranges.iter().enumerate().map(end).collect());
        }
        let lengths = (0..).map(|i| (RUN << i) + 1);
        let longest = 2 * sizes::LARGEST as i64 + 1;
        let runs = lengths.take_while(|n| *n <= longest);
        let mut points = Points {
            near,
            joint: joint(&ranges),
            runs: runs.map(|n| self.run(&ranges, n)).collect(),
            far,
            last: self.run(&ranges, -RUN),
        };
        let near_and_far = [&mut points.near, &mut points.far, &mut points.last];
        let lists = near_and_far.into_iter().chain([&mut points.joint]);
        for list in lists.chain(&mut points.runs) {
            list.iter_mut().for_each(|p| self.put_within(p, least));
            list.retain(|p| self.accepts(p));
            list.sort();
            list.dedup();
        }
        points.joint.retain(|p| !points.near.contains(p));
        points.far.retain(|p| !points.near.contains(p));
        match points.near.is_empty() {
            true => Err(Error::Profile(format!("class {} has no call", self.name))),
            false => Ok(points),
        }
    }

    /// So many steps along each integer, but the positions of a decoder, and as many points at which all of
    /// them are some steps above the least.
    fn run(&self, ranges: &[(i64, i64)], steps: i64) -> Vec<Vec<i64>> {
        let base: Vec<i64> = ranges.iter().map(|r| r.0).collect();
        let position = |i: &usize| {
            self.positions()
                .is_some_and(|p| *i == p.past || *i == p.seq)
        };
        let ints = (0..ranges.len()).filter(|i| !position(i));
        let run = |i: usize| {
            let (min, max) = ranges[i];
            let base = base.clone();
            let at = move |value| {
                let mut point = base.clone();
                point[i] = value;
                point
            };
            // From the end of the range back, where they are negative.
            let (first, last) = match steps < 0 {
                true => (min.max(max.saturating_add(steps)), max),
                false => (min, max.min(min.saturating_add(steps))),
            };
            (first..=last).map(at)
        };
        let scattered = match ints.clone().count() {
            0 | 1 => 0,
            _ => steps.max(0),
        };
        let above = |i: usize, turn: i64| {
            let (min, max) = ranges[i];
            min + mixed(turn, i) % (steps + 1).min(max - min + 1)
        };
        let scattered = (0..scattered).map(|turn| {
            let mut point = base.clone();
            ints.clone().for_each(|i| point[i] = above(i, turn));
            point
        });
        ints.clone().flat_map(run).chain(scattered).collect()
    }

    /// The values of one integer between which points are taken.
    fn range(&self, i: usize, least: i64) -> (i64, i64) {
        let r = self.ints[i].range;
        let Some(Positions { past, seq }) = self.positions() else {
            return (r.min, r.max);
        };
        let shortest = self.ints[seq].range.min;
        let most = |other: i64| self.max_context.map_or(r.max, |c| r.max.min(c - other));
        if i == seq {
            return (r.min, most(self.ints[past].range.min));
        }
        if i != past {
            return (r.min, r.max);
        }
        let max = most(shortest);
        // Room for the steps of near points, else what there is. One value alone says nothing of
        // what grows, so where only one has a state, a state of no positions is the other.
        let min = (shortest + 1).min(max - 3).max(least).max(r.min);
        match min >= max && max > 0 {
            true => (r.min.max(max - 1), max),
            false => (min.min(max), max),
        }
    }

    /// Brings a point within the context: as many new positions as it has, fewer cached ones.
    fn put_within(&self, point: &mut [i64], least: i64) {
        let (Some(Positions { past, seq }), Some(max)) = (self.positions(), self.max_context)
        else {
            return;
        };
        if point[past].saturating_add(point[seq]) > max {
            let lowest = least.max(self.ints[past].range.min).min(point[past]);
            point[past] = (max - point[seq]).max(lowest);
            point[seq] = point[seq].min(max - point[past]);
        }
    }

    /// Calls without anything cached, if the class has them: the shortest and the longest.
    pub(super) fn first_calls(&self) -> Vec<Vec<i64>> {
        let Some(Positions { past, seq }) = self.positions() else {
            return Vec::new();
        };
        if self.ints[past].range.min != 0 {
            return Vec::new();
        }
        let mut shortest: Vec<i64> = self.ints.iter().map(|i| i.range.min).collect();
        shortest[past] = 0;
        let mut longest: Vec<i64> = self.ints.iter().map(|i| i.range.max).collect();
        longest[past] = 0;
        longest[seq] = longest[seq].min(self.max_context.unwrap_or(i64::MAX));
        let mut calls = vec![shortest, longest];
        calls.dedup();
        calls
    }
}

/// A number for each turn and integer, without a pattern and the same in every run; not negative.
fn mixed(turn: i64, int: usize) -> i64 {
    let x = (turn as u64 * 64 + int as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((x ^ (x >> 32)) >> 33) as i64
}

/// Points at which two or all integers are above the least: each product of two differs from every
/// other function of few terms at one of them.
fn joint(ranges: &[(i64, i64)]) -> Vec<Vec<i64>> {
    let varies = |i: &usize| ranges[*i].0 < ranges[*i].1;
    let ints: Vec<usize> = (0..ranges.len()).filter(varies).collect();
    let above = |steps: &dyn Fn(usize) -> i64| {
        let at = |(i, (min, max)): (usize, &(i64, i64))| (min + steps(i)).min(*max);
        ranges.iter().enumerate().map(at).collect::<Vec<i64>>()
    };
    let mut points = Vec::new();
    for (n, i) in ints.iter().enumerate() {
        for j in &ints[n + 1..] {
            points.push(above(&|v| i64::from(v == *i) + 2 * i64::from(v == *j)));
        }
    }
    if ints.len() > 1 {
        points.push(above(&|v| 1 + 2 * (v as i64 % 2)));
        points.push(above(&|v| 3 - (v as i64 % 2)));
    }
    points
}
