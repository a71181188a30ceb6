//! What a model keeps, for all classes of a profile at once.
//!
//! A state is a place in the model that outlives a call. The place itself is not seen, only tensors are: in a tour
//! through the classes, a call reads tensors that earlier calls made. Where a class reads is a [`Port`]. After a
//! call of a class, the tensor at a port of the next call is either one that this call made, at
//! some place of its list, or an older one, which this call itself read at a port of its own or did not touch. Two
//! ports that all classes treat alike hold the same value always, so they are one state; and what a
//! class does to a state is a [`Rule`]. A ring of values is a chain of states which hand their
//! values on; what was made once is a state that is kept.
//!
//! All of this is a plan that samples are read by. It is right if every call of every tour computes what the
//! graphs say, which [`super::history`] checks.

use super::calls::Port;
use super::finder::Finder;
use super::profile::{Class, Step};
use super::tour::{self, Beyond, Tour};
use crate::Error;
use crate::mirror::candle_nn::VarBuilder;
use std::collections::{BTreeSet, HashMap};

/// Calls of one class before those of a tour that are looked at: more where a model still changes.
pub(super) const WARM: [usize; 4] = [2, 6, 12, 24];

/// The next value of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// What the call makes at a place of its list.
    Made(usize),
    /// What a state was before: the same one, or another.
    Kept(usize),
}

/// The states of a profile.
#[derive(Default, PartialEq)]
pub(super) struct States {
    /// For each class, the state that is read at a port.
    pub reads: Vec<HashMap<Port, usize>>,
    /// For each class, the next value of each state.
    pub rules: Vec<Vec<Rule>>,
}

impl States {
    /// Finds the states of a profile, and what was recorded for it; `warm` calls show them all.
    pub fn find<S: Step>(
        load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
        vb: &VarBuilder<'_>,
        classes: &[Class],
        warm: usize,
    ) -> Result<(States, Vec<Tour>), Error> {
        let routes = routes(classes, warm);
        if routes.is_empty() {
            return Ok((States::default(), Vec::new()));
        }
        let tours = routes
            .iter()
            .map(|route| Tour::make(load, vb, classes, route, &tour::least, Beyond::Less));
        let tours = tours.collect::<Result<Vec<Tour>, Error>>()?;
        let states = Finder::new(classes, &tours, warm)?.states()?;
        Ok((states, tours))
    }

    /// The state at a port of a class.
    pub fn at(&self, class: usize, port: Port) -> Option<usize> {
        self.reads.get(class)?.get(&port).copied()
    }

    /// The next value of each state after a call of a class.
    pub fn rules(&self, class: usize) -> &[Rule] {
        self.rules.get(class).map_or(&[], Vec::as_slice)
    }

    /// Ways on which calls show all that the states are.
    pub fn routes(&self, classes: &[Class]) -> Vec<Vec<usize>> {
        let warm = (0..classes.len()).map(|c| self.warm(c)).max();
        routes(classes, warm.unwrap_or(0).max(2) as usize)
    }

    /// The calls of a class after which one reads only what such calls made.
    pub fn warm(&self, class: usize) -> i64 {
        let rules = self.rules(class);
        let handed = |state: usize| {
            let next = |s: &usize| match rules.get(*s) {
                Some(Rule::Kept(other)) if other != s => Some(*other),
                _ => None,
            };
            let chain = std::iter::successors(Some(state), next);
            chain.take(rules.len() + 1).count() as i64 - 1
        };
        // A chain is full once each of its values was made, and what is read then was made by a call like it.
        2 + 2 * (0..rules.len()).map(handed).max().unwrap_or(0)
    }
}

/// The ways on which each class follows each, where it can; on the first there are twice so many calls of one
/// class before.
fn routes(classes: &[Class], warm: usize) -> Vec<Vec<usize>> {
    let past = |c: &Class| c.positions().map(|p| c.ints[p.past].range);
    let ranges = classes.iter().enumerate();
    let ranges: Vec<_> = ranges.filter_map(|(i, c)| Some((i, past(c)?))).collect();
    let (later, firsts): (Vec<_>, Vec<_>) = ranges.into_iter().partition(|(_, r)| r.max > 0);
    let Some((first, _)) = later.first() else {
        return Vec::new();
    };
    let mut starts = later.iter().chain(&firsts).filter(|(_, r)| r.min == 0);
    let start = starts.next().map_or(*first, |s| s.0);
    let mut route = vec![*first; 2 * warm];
    route[0] = start;
    route.extend(through(&later.iter().map(|c| c.0).collect::<Vec<_>>()));
    let mut routes = vec![route];
    for (other, _) in &firsts {
        routes.extend(later.iter().map(|(y, _)| vec![*other, *y, *y]));
    }
    routes
}

/// A way after calls of the first of these classes on which each is followed by each.
fn through(classes: &[usize]) -> Vec<usize> {
    let mut last = classes[0];
    let mut left: BTreeSet<(usize, usize)> = classes
        .iter()
        .flat_map(|x| classes.iter().map(|y| (*x, *y)))
        .collect();
    left.remove(&(last, last));
    let mut route = Vec::new();
    while let Some((x, _)) = left.first().copied() {
        let on = left.iter().find(|p| p.0 == last).map(|p| p.1);
        let next = on.unwrap_or(x);
        left.remove(&(last, next));
        route.push(next);
        last = next;
    }
    route
}
