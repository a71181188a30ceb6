//! A way through the classes of a profile: calls of one model, one after the other.
//!
//! Samples show a class by itself. How calls of several classes go on from each other is seen in tours, which are
//! short, so their calls are as small as the classes have them. Where the context is full, what
//! the model keeps is told to be shorter.

use super::calls::Calls;
use super::profile::{Call, Class, Step};
use crate::Error;
use crate::ints::Positions;
use crate::line;
use crate::mirror::Tensor;
use crate::mirror::candle_nn::VarBuilder;
use crate::mirror::recorder::{Recording, Scope};

/// One call of a tour.
pub(super) struct Stop {
    pub class: usize,
    pub values: Vec<i64>,
    pub outputs: Vec<Tensor>,
}

/// A tour that was made. What holds tensors comes before the recording, which lets go of the newest first.
pub(super) struct Tour {
    /// Call 1 is the first.
    pub stops: Vec<Stop>,
    pub calls: Calls,
    /// The calls before what was kept was told another length.
    pub natural: usize,
    _recording: Recording,
}

/// What becomes of a tour where the context is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It goes on with less that is kept.
    Less,
    /// It ends.
    End,
}

/// The integers of the `n`th call of a tour, which is of a class; how many positions are cached follows from
/// the calls before.
pub(super) type Values<'a> = dyn Fn(usize, &Class) -> Vec<i64> + 'a;

/// Calls as small as they are.
pub(super) fn least(_: usize, class: &Class) -> Vec<i64> {
    class.ints.iter().map(|i| i.range.min).collect()
}

/// Calls of other lengths.
pub(super) fn varied(n: usize, class: &Class) -> Vec<i64> {
    let mut values = least(n, class);
    if let Some(Positions { seq, .. }) = class.positions() {
        let more = 1 + (n as i64 * 2) % 5;
        values[seq] = class.ints[seq].range.max.min(values[seq] + more);
    }
    values
}

impl Tour {
    pub fn make<S: Step>(
        load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
        vb: &VarBuilder<'_>,
        classes: &[Class],
        route: &[usize],
        values: &Values<'_>,
        beyond: Beyond,
    ) -> Result<Tour, Error> {
        let scope = Scope::start();
        line::forget();
        let mut model = load(vb.clone().owned()).map_err(|source| Error::Load {
            line: line::last(),
            source,
        })?;
        let mut stops: Vec<Stop> = Vec::with_capacity(route.len());
        let (mut position, mut last, mut natural) = (0, 0, route.len());
        for (n, class) in route.iter().enumerate() {
            let of = &classes[*class];
            let Some(Positions { past, seq }) = of.positions() else {
                break;
            };
            let mut values = values(n, of);
            // What is cached once the context is full leaves room for the call.
            let context = of.max_context.unwrap_or(i64::MAX);
            let room = (context - values[seq]).min(of.ints[past].range.max).max(1);
            if position > room {
                // What one call left does not show how it grows.
                if beyond == Beyond::End || n < 2 {
                    break;
                }
                natural = natural.min(n);
                scope.resize_kept(room - position, last);
                position = room;
            }
            values[past] = position;
            last = values[seq];
            position += last;
            scope.next_call();
            let call = Call::new(of, values.clone());
            line::forget();
            let outputs = match model.step(&call) {
                Ok(outputs) => outputs,
                // A model that counts positions itself does not know that some were taken away.
                Err(_) if natural < n => break,
                Err(source) => {
                    let point = of.describe(&values);
                    return Err(Error::Model {
                        line: line::last(),
                        point,
                        source,
                    });
                }
            };
            drop(call);
            stops.push(Stop {
                class: *class,
                values,
                outputs,
            });
        }
        drop(model);
        let recording = scope.finish();
        Ok(Tour {
            stops,
            calls: Calls::of(&recording),
            natural,
            _recording: recording,
        })
    }

    /// A call of the tour, from 1.
    pub fn stop(&self, call: usize) -> Option<&Stop> {
        self.stops.get(call.checked_sub(1)?)
    }
}
