//! From model code to graphs: record what the model does, then generalise it.
//!
//! While a trace runs, every symbolic tensor that is made is also kept by a recorder of the
//! thread, in order and by call. Two calls that take the same path through the model's code make
//! the same list, so a tensor is known by its place in it: that is how what one call leaves for
//! later ones is found, and how samples are compared.

mod builder;
mod calls;
mod constants;
mod finder;
mod fit;
mod generalise;
mod history;
mod literal;
mod parts;
mod points;
mod profile;
mod reach;
mod relative;
mod sample;
mod sizes;
mod states;
mod tour;

pub use builder::ProfileBuilder;
pub use parts::Split;
pub use profile::{Call, Class, Profile, Step};

use crate::graph::Graph;
use crate::ints::Positions;
use crate::mirror::candle_nn::VarBuilder;
use crate::mirror::known::Known;
use crate::{Error, verify};
use constants::{CONSTANTS, affordable};
use history::{History, Initials};
use reach::Way;
use sample::{Of, Sample};
use states::States;
use tour::{Beyond, Tour};

/// Traces a model for one class of calls and generalises it over the class's ranges.
///
/// As [`trace_profile`], for a profile of this class alone, which is not split.
///
/// # Errors
///
/// Those of [`trace_profile`].
pub fn trace<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    class: &Class,
) -> Result<Graph, Error> {
    let _known = Known::start(vb);
    let graphs = graphs(load, vb, std::slice::from_ref(class))?;
    let graph = graphs.into_iter().next();
    graph.ok_or_else(|| Error::Profile("it has no classes".into()))
}

/// What tracing a profile gives.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The profile, with classes in parts where the model's code differs within one.
    pub profile: Profile,
    /// A graph for each of its classes.
    pub graphs: Vec<Graph>,
    /// The classes that were split, one after the other.
    pub splits: Vec<Split>,
}

/// Traces a model for each class of a profile and generalises it over the class's ranges.
///
/// `load` builds a fresh model; it runs once for each sample point. Each returned graph holds for
/// every call in its class; states that the model keeps are found and declared, the same in each graph.
///
/// The model is traced at every corner of the profile, so whatever it does differently from some
/// value of a runtime integer on, be it a window of its masks, a branch or a table, is in the
/// graph or an error. What begins and ends between two sample points
/// ([`Class::sample_points`]) is not seen.
///
/// Where the model's code differs within a class, the class is split there and traced again, as by
/// [`Profile::split`]; a profile has at most 8 classes then.
///
/// # Errors
///
/// [`Error::Load`] and [`Error::Model`] with what the model's code returned; [`Error::Profile`],
/// [`Error::TooFar`] and [`Error::TooLarge`] for a profile that cannot be traced to its ends;
/// the rest for what does not generalise.
pub fn trace_profile<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    profile: &Profile,
) -> Result<Traced, Error> {
    let _known = Known::start(vb);
    match graphs(load, vb, &profile.classes) {
        Err(error) if parts::may_help(&error) => parts::traced(load, vb, profile, error),
        graphs => Ok(Traced {
            profile: profile.clone(),
            graphs: graphs?,
            splits: Vec::new(),
        }),
    }
}

/// The graphs of these classes.
fn graphs<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    classes: &[Class],
) -> Result<Vec<Graph>, Error> {
    classes.iter().try_for_each(Class::check)?;
    let mut tried: Option<(States, Error)> = None;
    for warm in states::WARM {
        let (states, tours) = match (States::find(load, vb, classes, warm), &tried) {
            // Such a model may just need more calls until it does what it always does.
            (Err(error @ (Error::State { .. } | Error::ControlFlow { .. })), _) => {
                tried.get_or_insert((States::default(), error));
                continue;
            }
            (Ok((states, _)), Some((known, _))) if *known == states => continue,
            (found, _) => found?,
        };
        match with_states(load, vb, classes, &states, tours) {
            Err(error @ (Error::State { .. } | Error::ControlFlow { .. })) => {
                tried = Some((states, error));
            }
            other => return other,
        }
    }
    let nothing = || Error::Profile("it has no classes".into());
    Err(tried.map_or_else(nothing, |t| t.1))
}

/// The graphs of all classes, where this is what the model keeps.
fn with_states<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    classes: &[Class],
    states: &States,
    tours: Vec<Tour>,
) -> Result<Vec<Graph>, Error> {
    let mut histories: Vec<History> = tours.iter().map(History::of).collect();
    drop(tours);
    let mut graphs = Vec::with_capacity(classes.len());
    for (index, class) in classes.iter().enumerate() {
        let of = Of {
            class,
            index,
            states,
        };
        let (graph, firsts) = class_graph(load, vb, of)?;
        graphs.push(graph);
        for point in firsts {
            let values = |_: usize, _: &Class| point.clone();
            let tour = Tour::make(load, vb, classes, &[index], &values, Beyond::End)?;
            histories.push(History::of(&tour));
        }
    }
    for route in states.routes(classes) {
        let tour = Tour::make(load, vb, classes, &route, &tour::varied, Beyond::End)?;
        histories.push(History::of(&tour));
    }
    let count = graphs.iter().map(|g| g.states.len()).max().unwrap_or(0);
    let mut initials: Initials = vec![None; count];
    for history in &histories {
        history.check(classes, &graphs, &mut initials)?;
    }
    let room = |state: usize| {
        let each = graphs.iter().map(|g| g.capacity(&g.states[state]));
        each.reduce(|a, b| a.iter().zip(&b).map(|(a, b)| *a.max(b)).collect())
    };
    let rooms: Vec<_> = (0..count).filter_map(room).collect();
    for graph in &mut graphs {
        for (state, room) in rooms.iter().enumerate() {
            if graph.capacity(&graph.states[state]) != *room {
                graph.states[state].least = room.clone();
            }
            graph.states[state].initial = initials[state].clone();
        }
    }
    Ok(graphs)
}

/// The graph of one class, and the first calls that it has to serve too.
fn class_graph<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    of: Of<'_>,
) -> Result<(Graph, Vec<Vec<i64>>), Error> {
    let class = of.class;
    let mut tracer = Tracer {
        load,
        vb,
        of,
        samples: Vec::new(),
    };
    let (way, least) = tracer.way()?;
    let points = class.points(least)?;
    for point in &points.near {
        tracer.add(point, way)?;
    }
    // What does not grow evenly is told before its size elsewhere is asked for.
    let mut more = [points.joint].into_iter().chain(points.runs);
    match tracer.generalised(way, &mut more) {
        // What follows from distances may need those of the far points.
        Ok(_) | Err(Error::Constant { .. }) => {}
        Err(other) => return Err(other),
    }
    let near = tracer.samples.len();
    for point in &points.far {
        affordable(class, &tracer.samples[..near], point)?;
        match tracer.add(point, tracer.far(way, point)) {
            Err(error @ Error::State { .. }) => {
                return Err(tracer.narrowed(way, point.clone(), error));
            }
            other => other?,
        }
    }
    let firsts = class.first_calls();
    for point in &firsts {
        affordable(class, &tracer.samples[..near], point)?;
    }
    let graph = tracer.generalised(way, &mut more);
    let graph = match graph.and_then(|graph| tracer.checked_at_ends(graph, way, &points.last)) {
        Err(error @ Error::ControlFlow { .. }) => {
            let base = &tracer.samples[0];
            let differs = |s: &&Sample| generalise::same_structure(class, base, s).is_err();
            let bad = tracer
                .samples
                .iter()
                .find(differs)
                .map(|s| s.values.clone());
            return Err(match bad {
                Some(bad) => tracer.narrowed(way, bad, error),
                None => error,
            });
        }
        other => other?,
    };
    verify(&graph, "trace")?;
    Ok((graph, firsts))
}

struct Tracer<'a, S> {
    load: &'a mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &'a VarBuilder<'a>,
    of: Of<'a>,
    samples: Vec<Sample>,
}

impl<S: Step> Tracer<'_, S> {
    fn sample(&mut self, point: &[i64], way: Way) -> Result<Sample, Error> {
        sample::sample(self.load, self.vb, self.of, point, way)
    }

    fn add(&mut self, point: &[i64], way: Way) -> Result<(), Error> {
        if self.samples.iter().all(|s| s.values != point) {
            let sample = match self.sample(point, way) {
                // A model may refuse the long calls on the way, which need not be those of any class.
                Err(error @ Error::Model { .. }) => match way {
                    Way::Both(calls) => match self.sample(point, Way::Steps(calls)) {
                        Err(Error::Model { .. }) => self.sample(point, Way::Set(calls))?,
                        other => other?,
                    },
                    Way::Alone | Way::Reached | Way::Set(_) | Way::Steps(_) => {
                        return Err(error);
                    }
                },
                other => other?,
            };
            self.samples.push(sample);
        }
        Ok(())
    }

    /// The samples as one graph. Where they do not tell what a size is, the next points are sampled.
    fn generalised(
        &mut self,
        way: Way,
        more: &mut dyn Iterator<Item = Vec<Vec<i64>>>,
    ) -> Result<Graph, Error> {
        loop {
            let error = match generalise::generalise(self.of.class, &self.samples) {
                Err(error @ Error::Size { .. }) => error,
                other => return other,
            };
            let mut left = std::iter::from_fn(|| more.next());
            let Some(points) = left.find(|points| !points.is_empty()) else {
                return Err(error);
            };
            let constants = self.samples.iter().map(Sample::constant_bytes).max();
            if constants.unwrap_or(0).saturating_mul(points.len() as u128) > CONSTANTS {
                return Err(error);
            }
            for point in &points {
                self.add(point, way)?;
            }
        }
    }

    /// Where there are floors, the last steps of each range belong to the same graph.
    fn checked_at_ends(
        &mut self,
        graph: Graph,
        way: Way,
        last: &[Vec<i64>],
    ) -> Result<Graph, Error> {
        if graph.floors.is_empty() {
            return Ok(graph);
        }
        for point in last {
            affordable(self.of.class, &self.samples, point)?;
            self.add(point, way)?;
        }
        generalise::generalise(self.of.class, &self.samples)
    }

    /// How points are come to, and the least number of cached positions at which that can be.
    fn way(&mut self) -> Result<(Way, i64), Error> {
        let class = self.of.class;
        let Some(Positions { past, seq }) = class.positions() else {
            return Ok((Way::Alone, 0));
        };
        if class.ints[past].range.max == 0 {
            return Ok((Way::Alone, 0));
        }
        let calls = self.of.states.warm(self.of.index);
        let Some(trial) = class.trial(calls) else {
            return Ok((Way::Set(calls), 1));
        };
        let reached = self.sample(&trial, Way::Reached)?;
        let same = match self.sample(&trial, Way::Set(calls)) {
            Ok(set) => set.graph == reached.graph,
            Err(_) => false,
        };
        self.samples.push(reached);
        match same {
            true => Ok((Way::Set(calls), 1)),
            false => {
                let short = class.ints[seq].range.min;
                Ok((Way::Reached, (calls - 1) * short + 1))
            }
        }
    }

    /// Control flow that differs at a point: between which two neighbouring calls it changes, so
    /// that the error says where to split the profile.
    fn narrowed(&mut self, way: Way, mut bad: Vec<i64>, mut error: Error) -> Error {
        let class = self.of.class;
        let Some(base) = self.samples.first() else {
            return error;
        };
        let mut good = base.values.clone();
        while let Some(middle) = between(&good, &bad) {
            let sample = sample::sample(self.load, self.vb, self.of, &middle, way);
            let same = sample.and_then(|s| generalise::same_structure(class, &self.samples[0], &s));
            match same {
                Ok(()) => good = middle,
                Err(e @ (Error::ControlFlow { .. } | Error::State { .. })) => {
                    (bad, error) = (middle, e);
                }
                Err(_) => break,
            }
        }
        let good = class.describe(&good);
        match &mut error {
            Error::ControlFlow { a, .. } => *a = good,
            Error::State { what, .. } => what.push_str(&format!(" (not so at {good})")),
            _ => {}
        }
        error
    }

    /// The end of the cached positions is reached as far as that is cheap: there a model that
    /// counts calls or positions by itself, and heeds that only from some number on, shows.
    fn far(&self, way: Way, point: &[i64]) -> Way {
        let Some(Positions { past, seq }) = self.of.class.positions() else {
            return way;
        };
        let shortest = self.of.class.ints[seq].range.min;
        let end = point[seq] == shortest && point[past] > 2 * shortest;
        match way {
            Way::Set(calls) if end => Way::Both(calls),
            other => other,
        }
    }
}

/// A call half-way between two, if there is one.
fn between(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let half: Vec<i64> = a.iter().zip(b).map(|(a, b)| a + (b - a) / 2).collect();
    (half != a).then_some(half)
}
