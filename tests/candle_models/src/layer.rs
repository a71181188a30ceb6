//! What a layer of a model costs: the launches that a second layer adds to a call, in order.
//!
//! Two small models are compiled, of one layer and of two. What the second adds begins where their
//! launches first differ, so it may begin in the middle of a layer and end in the middle of the next:
//! every launch is there once.

use crate::hold::{Target, engine, guarded};
use crate::oracle::{self, LAYERS};
use crate::spec::Way;
use crate::{Fault, ours, theirs};
use candle_trt::Engine;
use std::fmt::Write;

/// A launch: the kind of its kernel and the ops that it computes.
type Launched = (String, Vec<String>);

/// The launches that a second layer adds, of the first class of calls and of the last, as text; all launches of a model
/// whose layers cannot be chosen. `way` is the name of a way of calling the model of `file`.
///
/// # Errors
///
/// A [`Fault`] if there is no such case, or it does not compile.
pub fn text(file: &str, way: &str) -> Result<String, Fault> {
    let none = || Fault::Compile(format!("no case {file} [{way}]"));
    let ours = ours::cases::all().into_iter().find(|c| c.file == file);
    let theirs = theirs::cases::all().into_iter().find(|c| c.file == file);
    let (ours, theirs) = ours.zip(theirs).ok_or_else(none)?;
    let way: &Way = ours
        .spec
        .ways
        .iter()
        .find(|w| w.name == way)
        .ok_or_else(none)?;
    let (_, made) = guarded(Fault::Oracle, || oracle::results(&theirs, way))?;
    let classes = |layers| {
        let engine = guarded(Fault::Compile, || {
            engine(&ours, way, &made, (layers, Target::TABLE))
        })?;
        Ok::<_, Fault>(classes(&engine))
    };
    let (one, two) = (classes(1)?, classes(LAYERS)?);
    let mut out = String::new();
    for ((class, few), (_, many)) in one.iter().zip(&two) {
        let (what, added) = match added(few, many) {
            [] => ("all", few.as_slice()),
            some => ("a layer", some),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{file} [{}] {class}, {what}: {}",
            way.name,
            added.len()
        );
        for (kind, ops) in added {
            let _ = writeln!(out, "  {kind}: {}", runs(ops));
        }
    }
    Ok(out)
}

/// The launches of each class, by its name.
fn classes(engine: &Engine) -> Vec<(String, Vec<Launched>)> {
    let classes = &engine.report().classes;
    classes
        .iter()
        .map(|c| (c.class.clone(), c.launches.clone()))
        .collect()
}

/// What stands in `many` beyond what begins as `few` does.
fn added<'a>(few: &[Launched], many: &'a [Launched]) -> &'a [Launched] {
    let same = few.iter().zip(many).take_while(|(a, b)| a == b).count();
    let more = many.len().saturating_sub(few.len());
    many.get(same..same + more).unwrap_or(many)
}

/// Ops in order, each that follows itself once with how often.
fn runs(ops: &[String]) -> String {
    let mut out: Vec<(&str, usize)> = Vec::new();
    for op in ops {
        match out.last_mut() {
            Some((last, times)) if *last == op.as_str() => *times += 1,
            _ => out.push((op, 1)),
        }
    }
    let told = out.iter().map(|(op, times)| match times {
        1 => (*op).to_string(),
        _ => format!("{op} x{times}"),
    });
    told.collect::<Vec<_>>().join(", ")
}
