//! Proof that a plan is right, without any of the code that made it.
//!
//! The checker walks through the steps of the program and keeps a map of which bytes belong to
//! whom, as a cautious runtime would. Every value claims its bytes in its first step and gives
//! them up after its last.

use crate::{Lifetime, Plan, Value};
use std::collections::BTreeMap;

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan is one of another program.
    #[error("the plan has {offsets} offsets for {values} values")]
    Count {
        /// Offsets in the plan.
        offsets: usize,
        /// Values of the program.
        values: usize,
    },
    /// A lifetime ends before it starts.
    #[error("v{} lives from step {first} to step {last}", value.0)]
    Lifetime {
        /// The value.
        value: Value,
        /// Its first step.
        first: u32,
        /// Its last step.
        last: u32,
    },
    /// An offset breaks its value's alignment.
    #[error("v{} at {offset} is not aligned to {align}", value.0)]
    Misaligned {
        /// The value.
        value: Value,
        /// Its offset.
        offset: u64,
        /// What it should be a multiple of.
        align: u64,
    },
    /// A value ends beyond the peak.
    #[error("v{} ends at {end}, beyond the peak of {peak}", value.0)]
    Peak {
        /// The value.
        value: Value,
        /// Where it ends.
        end: u64,
        /// The plan's peak.
        peak: u64,
    },
    /// Two values share bytes while both are alive.
    #[error("in step {step} v{} at {}..{} and v{} at {}..{} share bytes",
        a.0, a_bytes.0, a_bytes.1, b.0, b_bytes.0, b_bytes.1)]
    Overlap {
        /// The step.
        step: u32,
        /// The value that was there.
        a: Value,
        /// Start and end of its bytes.
        a_bytes: (u64, u64),
        /// The value that came.
        b: Value,
        /// Start and end of its bytes.
        b_bytes: (u64, u64),
    },
}

/// The bytes in use, by start; ranges never overlap.
#[derive(Default)]
struct Claims(BTreeMap<u64, (u64, Value)>);

impl Claims {
    fn claim(&mut self, step: u32, start: u64, end: u64, value: Value) -> Result<(), PlanError> {
        let before = self.0.range(..end).next_back();
        match before {
            Some((&other, &(other_end, owner))) if other_end > start => Err(PlanError::Overlap {
                step,
                a: owner,
                a_bytes: (other, other_end),
                b: value,
                b_bytes: (start, end),
            }),
            _ => {
                self.0.insert(start, (end, value));
                Ok(())
            }
        }
    }

    fn give_up(&mut self, value: Value) {
        self.0.retain(|_, (_, owner)| *owner != value);
    }

    fn owns(&self, value: Value, start: u64) -> bool {
        matches!(self.0.get(&start), Some((_, owner)) if *owner == value)
    }
}

/// Checks that a plan keeps every promise: one offset a value, aligned, below the peak, and no
/// byte shared by two values alive in one step, unless one takes over the other's in place.
///
/// # Errors
/// [`PlanError`] names the first promise that is broken, with the values and bytes.
pub fn check(lifetimes: &[Lifetime], plan: &Plan) -> Result<(), PlanError> {
    if plan.offsets.len() != lifetimes.len() {
        return Err(PlanError::Count {
            offsets: plan.offsets.len(),
            values: lifetimes.len(),
        });
    }
    // step -> values that are born, values that have died before it
    let mut steps: BTreeMap<u64, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for (i, (l, &offset)) in lifetimes.iter().zip(&plan.offsets).enumerate() {
        let value = Value(i as u32);
        check_alone(value, l, offset, plan.peak)?;
        steps.entry(l.first.into()).or_default().0.push(value);
        steps
            .entry(u64::from(l.last) + 1)
            .or_default()
            .1
            .push(value);
    }
    let mut claims = Claims::default();
    for (step, (born, died)) in steps {
        for value in died {
            claims.give_up(value);
        }
        birth(lifetimes, plan, &mut claims, step as u32, born)?;
    }
    Ok(())
}

fn check_alone(value: Value, l: &Lifetime, offset: u64, peak: u64) -> Result<(), PlanError> {
    if l.last < l.first {
        return Err(PlanError::Lifetime {
            value,
            first: l.first,
            last: l.last,
        });
    }
    if l.align > 1 && !offset.is_multiple_of(l.align) {
        return Err(PlanError::Misaligned {
            value,
            offset,
            align: l.align,
        });
    }
    match offset.checked_add(l.bytes) {
        Some(end) if end <= peak => Ok(()),
        end => Err(PlanError::Peak {
            value,
            end: end.unwrap_or(u64::MAX),
            peak,
        }),
    }
}

/// Lets the values that are born in a step claim their bytes.
fn birth(
    lifetimes: &[Lifetime],
    plan: &Plan,
    claims: &mut Claims,
    step: u32,
    born: Vec<Value>,
) -> Result<(), PlanError> {
    // What takes over bytes in place goes first: the rest of the old value's bytes are still
    // read in this step, so nobody else may have them.
    let mut rests = Vec::new();
    let mut others = Vec::new();
    for value in born {
        let (l, start) = (&lifetimes[value.0 as usize], plan.offsets[value.0 as usize]);
        let end = start + l.bytes;
        let takes_over = l.in_place_of.filter(|old| {
            lifetimes
                .get(old.0 as usize)
                .is_some_and(|o| o.last == step && o.first < step)
                && claims.owns(*old, start)
        });
        match takes_over {
            _ if l.bytes == 0 => {}
            None => others.push((start, end, value)),
            Some(old) => {
                let old_end = start + lifetimes[old.0 as usize].bytes;
                claims.give_up(old);
                claims.claim(step, start, end, value)?;
                if old_end > end {
                    rests.push((end, old_end, old));
                }
            }
        }
    }
    for (start, end, value) in rests.into_iter().chain(others) {
        claims.claim(step, start, end, value)?;
    }
    Ok(())
}
