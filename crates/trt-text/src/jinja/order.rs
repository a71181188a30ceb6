//! Order between values, as Python has it: numbers, strings, sequences of such; nothing else, and no two kinds.

use std::cmp::Ordering;

use minijinja::value::ValueKind;
use minijinja::{State, Value};

use super::ops::same;
use super::{Made, fault};

/// Which of two values is less.
pub(crate) fn compare(state: &State, a: &Value, b: &Value) -> Made<Ordering> {
    state.consume_fuel(1)?;
    let number = |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool);
    let same = match (a.kind(), b.kind()) {
        (ValueKind::String, ValueKind::String) => true,
        (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable)
            if a.is_tuple() == b.is_tuple() =>
        {
            for (x, y) in a.try_iter()?.zip(b.try_iter()?) {
                if !same(state, &x, &y, 0)? {
                    return compare(state, &x, &y);
                }
            }
            return Ok(a.len().cmp(&b.len()));
        }
        _ => number(a) && number(b),
    };
    match same {
        true => Ok(a.cmp(b)),
        false => Err(fault(format!(
            "{} and {} have no order",
            a.kind(),
            b.kind()
        ))),
    }
}

/// Sorts by a key; equal ones stay in order.
pub(crate) fn sort(
    state: &State,
    items: &mut [Value],
    key: impl Fn(&Value) -> Made<Value>,
) -> Made<()> {
    let mut keyed: Vec<(Value, Value)> = items
        .iter()
        .map(|item| Ok((key(item)?, item.clone())))
        .collect::<Made<_>>()?;
    let mut wrong = None;
    keyed.sort_by(|(a, _), (b, _)| {
        compare(state, a, b).unwrap_or_else(|e| {
            wrong = Some(e);
            Ordering::Equal
        })
    });
    match wrong {
        Some(e) => Err(e),
        None => {
            let sorted = keyed.into_iter().map(|(_, item)| item);
            items
                .iter_mut()
                .zip(sorted)
                .for_each(|(place, item)| *place = item);
            Ok(())
        }
    }
}

/// A string in lower case, anything else as it is.
pub(crate) fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

/// What `attribute="a.b.0"` names.
pub(crate) fn attribute(state: &State, value: &Value, path: &Value) -> Made<Value> {
    state.consume_fuel(1)?;
    let Some(path) = path.as_str() else {
        return value.get_item(path);
    };
    let mut value = value.clone();
    for part in path.split('.') {
        value = match part.parse::<i64>() {
            Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => {
                value.get_item(&Value::from(index))?
            }
            _ => value.get_attr(part)?,
        };
    }
    Ok(value)
}
