//! Filters that put values in order or find equal ones.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Tuple, ValueKind};
use minijinja::{State, Value, filters};

use super::args::Args;
use super::filters::{Given, defined, items};
use super::ops::{bounded, same};
use super::order::{attribute, compare, folded, sort};
use super::{Made, charge, fault};

/// The value of an item that it is sorted by.
fn key(state: &State, item: &Value, path: Option<&Value>, case: bool) -> Made<Value> {
    let value = match path {
        Some(path) => attribute(state, item, path)?,
        None => item.clone(),
    };
    defined(&value)?;
    Ok(folded(value, case))
}

pub(crate) fn sorted(state: &State, value: Value, given: Given) -> Made<Vec<Value>> {
    let args = Args::of("sort", given, &["reverse", "case_sensitive", "attribute"])?;
    let case = args.flag(1);
    let mut items = items(state, &value)?;
    charge(
        state,
        64 * items.len() * (items.len().max(1).ilog2() as usize + 1),
    )?;
    let reverse = args.flag(0);
    if reverse {
        // Equal ones stay in order, also from the end.
        items.reverse();
    }
    let several = args
        .some(2)
        .and_then(|p| p.as_str())
        .filter(|p| p.contains(','));
    match several {
        Some(paths) => sort(state, &mut items, |item| {
            let part = |path: &str| key(state, item, Some(&Value::from(path)), case);
            let parts = paths.split(',').map(part).collect::<Made<Vec<Value>>>()?;
            Ok(Value::from(parts))
        })?,
        None => sort(state, &mut items, |item| {
            key(state, item, args.some(2), case)
        })?,
    }
    if reverse {
        items.reverse();
    }
    Ok(items)
}

pub(crate) fn dictsort(state: &State, value: Value, given: Given) -> Made<Vec<Value>> {
    let args = Args::of("dictsort", given, &["case_sensitive", "by", "reverse"])?;
    let by = match args.text(1)? {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(other) => return Err(fault(format!("dictsort by {other:?}, not key or value"))),
    };
    if value.kind() != ValueKind::Map {
        return Err(fault(format!("dictsort of a {}", value.kind())));
    }
    let pair = |key: Value| -> Made<Value> {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from(vec![key, item])))
    };
    let mut pairs = items(state, &value)?
        .into_iter()
        .map(pair)
        .collect::<Made<Vec<_>>>()?;
    let (case, at) = (args.flag(0), Value::from(by));
    let reverse = args.flag(2);
    if reverse {
        pairs.reverse();
    }
    sort(state, &mut pairs, |pair| key(state, pair, Some(&at), case))?;
    if reverse {
        pairs.reverse();
    }
    Ok(pairs)
}

pub(crate) fn extreme(state: &State, value: Value, given: Given, wanted: Ordering) -> Made<Value> {
    let args = Args::of("min or max", given, &["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in items(state, &value)? {
        let by = key(state, &item, args.some(1), args.flag(0))?;
        let better = match &best {
            Some((most, _)) => compare(state, &by, most)? == wanted,
            None => true,
        };
        if better {
            best = Some((by, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

pub(crate) fn unique(state: &State, value: Value, given: Given) -> Made<Vec<Value>> {
    let args = Args::of("unique", given, &["case_sensitive", "attribute"])?;
    let (mut seen, mut kept): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    'items: for item in items(state, &value)? {
        let by = key(state, &item, args.some(1), args.flag(0))?;
        for other in &seen {
            if same(state, &by, other, 0)? {
                continue 'items;
            }
        }
        seen.push(by);
        kept.push(item);
    }
    Ok(kept)
}

pub(crate) fn groupby(
    state: &State,
    value: Value,
    path: Option<&str>,
    kwargs: Kwargs,
) -> Made<Value> {
    let path = match path {
        Some(path) => path.to_string(),
        None => kwargs.peek("attribute")?,
    };
    let (path, default) = (Value::from(path), kwargs.peek::<Option<Value>>("default")?);
    let mut keys = Vec::new();
    for item in items(state, &value)? {
        let by = attribute(state, &item, &path)?;
        match (by.is_undefined(), &default) {
            (true, Some(default)) => keys.push(default.clone()),
            _ => keys.push(key(state, &item, Some(&path), false)?),
        }
    }
    // They must have an order; then they are sorted by it.
    sort(state, &mut keys, |key| Ok(key.clone()))?;
    let path = path.as_str();
    bounded(state, filters::groupby(value.clone(), path, kwargs)?)
}
