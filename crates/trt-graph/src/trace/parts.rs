//! Classes in parts, for models that do something else from some value of an integer on.
//!
//! A call takes a path through the model's code, which shows in the kinds of tensors that it makes of its inputs. Mirrored
//! methods make the same ones at any size, so a class whose shortest and longest calls take different paths can be no
//! graph: it is split at the value where the path changes. The first call of a session is another matter. That of most
//! models makes other tensors than later ones and is the same function all the same, so classes are split there
//! only where nothing else helps. Whatever comes of it is traced as if the caller had asked for these
//! classes: nothing is taken on trust here.

use super::calls::Calls;
use super::generalise::shape_free;
use super::profile::{Call, Class, Profile, Step};
use super::{Traced, graphs};
use crate::Error;
use crate::graph::Op;
use crate::ints::{PAST, Positions};
use crate::mirror::candle_nn::VarBuilder;
use crate::mirror::recorder::Scope;
use serde::{Deserialize, Serialize};
use std::fmt;
use trt_kernel::DType;

/// The most classes that a profile is split into.
const MOST: usize = 8;

/// A class that became two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The class.
    pub class: String,
    /// The integer whose values part its calls.
    pub int: String,
    /// The least value in the second of the two.
    pub from: i64,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Split { class, int, from } = self;
        write!(f, "{class} at {int} = {from}")
    }
}

/// Whether an error may be one of classes that are too wide.
pub(super) fn may_help(error: &Error) -> bool {
    matches!(error, Error::State { .. } | Error::ControlFlow { .. })
}

/// The graphs of a profile that cannot be traced as it is, in parts of its classes; else the error that it had.
pub(super) fn traced<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    profile: &Profile,
    error: Error,
) -> Result<Traced, Error> {
    let mut parts = profile.clone();
    let mut splits = Vec::new();
    let mut paths = Paths { load, vb };
    while let Some(split) = paths.differ(&parts.classes) {
        if parts.classes.len() == MOST {
            return Err(error);
        }
        parts = parts.apart(std::slice::from_ref(&split))?;
        splits.push(split);
    }
    if !splits.is_empty() {
        match graphs(load, vb, &parts.classes) {
            Err(other) if may_help(&other) => {}
            Err(_) => return Err(error),
            Ok(graphs) => return Ok(told(parts, graphs, splits)),
        }
    }
    let firsts: Vec<Split> = parts.classes.iter().filter_map(first_call).collect();
    let mut tries: Vec<Vec<Split>> = firsts.iter().map(|s| vec![s.clone()]).collect();
    if firsts.len() > 1 {
        tries.push(firsts);
    }
    for firsts in tries {
        if parts.classes.len() + firsts.len() > MOST {
            continue;
        }
        let parts = parts.apart(&firsts)?;
        if let Ok(graphs) = graphs(load, vb, &parts.classes) {
            splits.extend(firsts);
            return Ok(told(parts, graphs, splits));
        }
    }
    Err(error)
}

fn told(profile: Profile, graphs: Vec<crate::Graph>, splits: Vec<Split>) -> Traced {
    for split in &splits {
        tracing::info!(%split, "the model's code differs within a class, which becomes two");
    }
    Traced {
        profile,
        graphs,
        splits,
    }
}

/// A class with calls at the start of a session and others, parted there.
fn first_call(class: &Class) -> Option<Split> {
    let Positions { past, .. } = class.positions()?;
    let range = class.ints[past].range;
    (range.min == 0 && range.max > 0).then(|| Split {
        class: class.name.clone(),
        int: PAST.into(),
        from: 1,
    })
}

/// The kinds of the tensors that a call makes of its inputs, in order.
type Path = Vec<(Op, DType, usize)>;

/// A class and the integers of one of its calls.
type CallOf<'a> = (&'a Class, Vec<i64>);

struct Paths<'a, 'b, S> {
    load: &'a mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &'a VarBuilder<'b>,
}

impl<S: Step> Paths<'_, '_, S> {
    /// Where the path changes within a class, if it does between its ends.
    fn differ(&mut self, classes: &[Class]) -> Option<Split> {
        // What goes before calls that are none of the first.
        let start = classes.iter().find_map(|class| {
            let Positions { past, seq } = class.positions()?;
            let least: Vec<i64> = class.ints.iter().map(|i| i.range.min).collect();
            (least[past] == 0).then(|| (class, least[seq], least))
        });
        for class in classes {
            let of = class.positions();
            let past = of.map_or(0, |p| class.ints[p.past].range.min);
            let mut ways = vec![(past, Vec::new())];
            if let (Some(p), Some((starter, length, least))) = (of, &start)
                && (past..=class.ints[p.past].range.max).contains(length)
            {
                ways.push((*length, vec![(*starter, least.clone())]));
            }
            for (past, before) in &ways {
                for int in 0..class.ints.len() {
                    if of.is_none_or(|p| p.past != int)
                        && let Some(split) = self.within((class, int), *past, before)
                    {
                        return Some(split);
                    }
                }
            }
        }
        None
    }

    /// Where the path changes along one integer; all others are least. These calls go before.
    fn within(
        &mut self,
        (class, int): (&Class, usize),
        past: i64,
        before: &[CallOf<'_>],
    ) -> Option<Split> {
        let mut values: Vec<i64> = class.ints.iter().map(|i| i.range.min).collect();
        let of = class.positions();
        if let Some(p) = of {
            values[p.past] = past;
        }
        let mut most = class.ints[int].range.max;
        if of.is_some_and(|p| p.seq == int) {
            most = most.min(class.max_context.unwrap_or(i64::MAX) - past);
        }
        let mut at = |value: i64| {
            values[int] = value;
            let call = class.accepts(&values).then(|| (class, values.clone()))?;
            self.path(before.iter().cloned().chain([call]).collect())
        };
        let (mut same, mut other) = (class.ints[int].range.min, most);
        let first = at(same)?;
        if at(other)? == first {
            return None;
        }
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            match at(middle)? == first {
                true => same = middle,
                false => other = middle,
            }
        }
        Some(Split {
            class: class.name.clone(),
            int: class.ints[int].name.clone(),
            from: other,
        })
    }

    /// The path of the last of these calls; none if the model refuses one of them.
    fn path(&mut self, calls: Vec<CallOf<'_>>) -> Option<Path> {
        let scope = Scope::start();
        let mut model = (self.load)(self.vb.clone().owned()).ok()?;
        for (class, values) in calls {
            scope.next_call();
            let call = Call::new(class, values);
            // What it returns is not looked at.
            drop(model.step(&call).ok()?);
        }
        drop(model);
        let recording = scope.finish();
        let last = recording.calls.len().checked_sub(1)?;
        let calls = Calls::of(&recording);
        let kind = |t: &crate::mirror::Tensor| (shape_free(t.op()), t.kernel_dtype(), t.rank());
        Some(calls.list(last).iter().map(kind).collect())
    }
}
