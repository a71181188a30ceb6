//! Jinja as transformers sets it up.
//!
//! `minijinja` parses and runs templates; what it does otherwise than Jinja2 on Python is put right here: how values are
//! printed ([`print`]), methods of strings, lists and dicts ([`methods`], [`containers`]), operators ([`ops`]), filters and tests ([`filters`], [`tests`]),
//! functions ([`globals`]), JSON ([`json`]), line ends and the `generation` tag ([`source`]). What a template can do in
//! Jinja and not here is an error that names it: `tests/references` has the lists.
//!
//! A template is bounded by fuel: each instruction, item and 64 bytes of text that it makes take of it, so it bounds time
//! and memory alike. What makes more than it is given asks for the room first ([`charge`]).

mod args;
mod containers;
mod filters;
mod globals;
mod json;
mod methods;
mod ops;
mod order;
mod print;
mod sorting;
mod source;
mod strings;
mod tests;

use std::sync::Arc;

use minijinja::machinery::{CompiledTemplate, TemplateConfig, eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error as Fault, ErrorKind, State, Value};

use crate::Error;
use crate::contained::contained;

/// Fuel that every template has: a million instructions, or 64 MB of text.
const FUEL: u64 = 1 << 20;
/// Fuel for each byte of the template and of what it is given.
const FUEL_A_BYTE: u64 = 4;
/// How deep macros, loops and blocks may call each other.
const DEPTH: usize = 64;

type Made<T> = Result<T, Fault>;

/// Renders a template with variables.
pub(crate) fn render(source: &str, variables: &[(String, Value)]) -> Result<String, Error> {
    // The interpreter trusts that what it compiled fits together.
    contained(|| run(source, variables))
        .unwrap_or_else(|why| Err(Error::Template { line: None, why }))
}

fn run(source: &str, variables: &[(String, Value)]) -> Result<String, Error> {
    let source = source::prepared(source).map_err(failed)?;
    let given: u64 = variables.iter().map(|(_, v)| size(v, 0)).sum();
    let jinja = environment(FUEL + FUEL_A_BYTE * (given + source.len() as u64));
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    let config = TemplateConfig {
        syntax_config: syntax.map_err(failed)?,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let compiled = CompiledTemplate::new("chat template", &source, &config);
    let mut compiled = compiled.map_err(failed)?;
    ops::replace(&mut compiled.instructions);
    compiled.blocks.values_mut().for_each(ops::replace);
    let pairs = variables.iter().map(|(n, v)| (n.as_str(), v.clone()));
    let (mut text, root) = (String::new(), Value::from_pairs(pairs));
    let mut out = make_string_output(&mut text);
    let (code, blocks) = (&compiled.instructions, &compiled.blocks);
    eval(&jinja, code, root, blocks, &mut out, AutoEscape::None).map_err(failed)?;
    Ok(text)
}

/// What templates find around them.
fn environment(fuel: u64) -> Environment<'static> {
    let mut jinja = Environment::new();
    jinja.set_auto_escape_callback(|_| AutoEscape::None);
    jinja.set_unknown_method_callback(methods::call);
    jinja.set_formatter(|out, state, value| {
        let text = print::text(state, value)?;
        Ok(out.write_str(&text)?)
    });
    jinja.set_recursion_limit(DEPTH);
    jinja.set_fuel(Some(fuel));
    filters::add(&mut jinja);
    tests::add(&mut jinja);
    globals::add(&mut jinja);
    ops::add(&mut jinja);
    jinja
}

/// About how many bytes a value is written in.
fn size(value: &Value, depth: usize) -> u64 {
    if let Some(text) = value.as_str() {
        return text.len() as u64;
    }
    if depth > 100 {
        return 1;
    }
    let inside = |v: Value| match value.get_item(&v) {
        Ok(item) if value.kind() == minijinja::value::ValueKind::Map => {
            size(&v, depth + 1) + size(&item, depth + 1)
        }
        _ => size(&v, depth + 1),
    };
    match value.try_iter() {
        Ok(items) => items.map(inside).sum(),
        Err(_) => 8,
    }
}

/// Takes fuel for `bytes` that are about to be made.
fn charge(state: &State, bytes: usize) -> Made<()> {
    state.consume_fuel(1 + bytes as u64 / 64)
}

/// Bytes that there is fuel for.
fn room(state: &State) -> usize {
    let left = state.fuel_levels().map_or(0, |(_, left)| left);
    usize::try_from(left.saturating_mul(64)).unwrap_or(usize::MAX)
}

fn fault(why: impl Into<String>) -> Fault {
    Fault::new(ErrorKind::InvalidOperation, why.into())
}

fn failed(fault: Fault) -> Error {
    if fault.kind() == ErrorKind::OutOfFuel {
        return Error::TemplateLimit {
            what: "more work or text than its size and the conversation's can need".into(),
        };
    }
    // What a macro or an included part fails with is the cause.
    let mut cause = &fault;
    while let Some(inner) = std::error::Error::source(cause).and_then(|e| e.downcast_ref()) {
        cause = inner;
    }
    if cause.kind() == ErrorKind::OutOfFuel {
        return failed(Fault::from(ErrorKind::OutOfFuel));
    }
    let kind = cause.kind().to_string();
    Error::Template {
        line: fault.line(),
        why: match cause.detail() {
            Some(detail) if cause.kind() == ErrorKind::InvalidOperation => detail.to_string(),
            Some(detail) => format!("{kind}: {detail}"),
            None => kind,
        },
    }
}
