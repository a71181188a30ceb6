//! Operators as Python has them, bounded.
//!
//! `minijinja` compares any two values and joins lists lazily, so that what is shared again and again costs nothing to make
//! and for ever to walk. So the instructions of operators and literals are replaced by calls of the filters here, which
//! take the same values off the stack and put one result on it. Their names are no words, so that no template can say them.

use std::cmp::Ordering;

use minijinja::formatting::{FormatStyle, format};
use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Environment, State, Value};

use super::containers::View;
use super::globals::Range;
use super::{Made, charge, fault, order, print};

/// How deep values may be nested: what walks through them calls itself.
const DEPTH: usize = 64;

/// Filters are looked up each time.
const NOT_CACHED: u8 = u8::MAX;

/// Puts the filters of this module in place of instructions.
pub(crate) fn replace(instructions: &mut Instructions<'_>) {
    for at in 0.. {
        let Some(instruction) = instructions.get_mut(at) else {
            return;
        };
        let (name, count) = match instruction {
            Instruction::Add => ("+", 2),
            Instruction::Mul => ("*", 2),
            Instruction::Rem => ("%", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Eq => ("==", 2),
            Instruction::Ne => ("!=", 2),
            Instruction::Lt => ("<", 2),
            Instruction::Lte => ("<=", 2),
            Instruction::Gt => (">", 2),
            Instruction::Gte => (">=", 2),
            Instruction::In => ("<-", 2),
            Instruction::CompareAndPreserve(_) => ("<<", 2),
            Instruction::BuildList(Some(count @ 1..)) => ("[]", *count),
            Instruction::BuildTuple(Some(count @ 1..)) => ("()", *count),
            Instruction::BuildMap(count @ 1..) => ("{}", 2 * *count),
            _ => continue,
        };
        // Source is bounded so that no literal has more.
        if let Ok(count) = u16::try_from(count) {
            *instruction = Instruction::ApplyFilter(name, Some(count), NOT_CACHED);
        }
    }
}

pub(crate) fn add(jinja: &mut Environment<'_>) {
    jinja.add_filter("+", plus);
    jinja.add_filter("*", times);
    jinja.add_filter("%", modulo);
    jinja.add_filter("~", |s: &State, a: Value, b: Value| -> Made<String> {
        let (mut a, b) = (print::text(s, &a)?, print::text(s, &b)?);
        charge(s, a.len() + b.len())?;
        a += &b;
        Ok(a)
    });
    jinja.add_filter("<<", |_: Value, _: Value| -> Made<Value> {
        Err(fault(
            "a chain of comparisons is not supported: write `a < b and b < c`",
        ))
    });
    jinja.add_filter("[]", |s: &State, first: Value, rest: Rest<Value>| {
        bounded(s, std::iter::once(first).chain(rest.0).collect())
    });
    jinja.add_filter("()", |s: &State, first: Value, rest: Rest<Value>| {
        let items: Vec<Value> = std::iter::once(first).chain(rest.0).collect();
        bounded(s, Value::from(Tuple::from(items)))
    });
    jinja.add_filter("{}", |s: &State, first: Value, rest: Rest<Value>| {
        let all: Vec<Value> = std::iter::once(first).chain(rest.0).collect();
        let pairs = all.as_chunks::<2>().0.iter();
        bounded(
            s,
            Value::from_pairs(pairs.map(|[k, v]| (k.clone(), v.clone()))),
        )
    });
    type Answer = fn(&State, &Value, &Value) -> Made<bool>;
    let answers: [(&[&'static str], Answer); 7] = [
        (&["==", "eq", "equalto"], |s, a, b| same(s, a, b, 0)),
        (&["!=", "ne"], |s, a, b| Ok(!same(s, a, b, 0)?)),
        (&["<", "lt", "lessthan"], |s, a, b| {
            Ok(order::compare(s, a, b)? == Ordering::Less)
        }),
        (&["<=", "le"], |s, a, b| {
            Ok(order::compare(s, a, b)? != Ordering::Greater)
        }),
        (&[">", "gt", "greaterthan"], |s, a, b| {
            Ok(order::compare(s, a, b)? == Ordering::Greater)
        }),
        (&[">=", "ge"], |s, a, b| {
            Ok(order::compare(s, a, b)? != Ordering::Less)
        }),
        (&["<-", "in"], contains),
    ];
    for (names, answer) in answers {
        jinja.add_filter(names[0], move |s: &State, a: Value, b: Value| {
            answer(s, &a, &b)
        });
        for name in names {
            jinja.add_test(*name, move |s: &State, a: Value, b: Value| {
                answer(s, &a, &b)
            });
        }
    }
}

/// A list, or what stands for one.
fn is_list(value: &Value) -> bool {
    let kind = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    kind && value.downcast_object_ref::<Range>().is_none()
        && value.downcast_object_ref::<View>().is_none()
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// A value that is nested no deeper than others can walk.
pub(crate) fn bounded(state: &State, value: Value) -> Made<Value> {
    fn walk(state: &State, value: &Value, left: usize) -> Made<()> {
        let map = value.kind() == ValueKind::Map && value.as_object().is_some();
        if !map && !is_list(value) {
            return Ok(());
        }
        if left == 0 {
            return Err(fault(format!("a value is nested deeper than {DEPTH}")));
        }
        charge(state, 8 * value.len().unwrap_or(0))?;
        for item in value.try_iter()? {
            walk(state, &item, left - 1)?;
            if map {
                walk(state, &value.get_item(&item)?, left - 1)?;
            }
        }
        Ok(())
    }
    walk(state, &value, DEPTH)?;
    Ok(value)
}

/// `a == b`.
pub(crate) fn same(state: &State, a: &Value, b: &Value, depth: usize) -> Made<bool> {
    state.consume_fuel(1)?;
    if depth > DEPTH {
        return Err(fault("values are nested too deep to be compared"));
    }
    if is_list(a) && is_list(b) {
        if a.is_tuple() != b.is_tuple() || a.len() != b.len() {
            return Ok(false);
        }
        for (x, y) in a.try_iter()?.zip(b.try_iter()?) {
            if !same(state, &x, &y, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let map = |v: &Value| v.kind() == ValueKind::Map && v.as_object().is_some();
    if map(a) && map(b) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for key in a.try_iter()? {
            let (x, y) = (a.get_item(&key)?, b.get_item(&key)?);
            if y.is_undefined() != x.is_undefined() || !same(state, &x, &y, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    charge(state, a.as_str().map_or(0, str::len))?;
    let object = |v: &Value| v.as_object().is_some();
    match object(a) && object(b) && (is_list(a) || is_list(b) || map(a) || map(b)) {
        true => Ok(false),
        false => Ok(a == b),
    }
}

/// `a in b`.
fn contains(state: &State, a: &Value, b: &Value) -> Made<bool> {
    if b.is_undefined() {
        return Ok(false);
    }
    if let Some(text) = b.as_str() {
        charge(state, text.len())?;
        let part = a.as_str().ok_or_else(|| {
            fault(format!(
                "`in` a string needs a string on its left, not {}",
                a.kind()
            ))
        })?;
        return Ok(text.contains(part));
    }
    match b.kind() {
        ValueKind::Map if b.as_object().is_some() => {
            for key in b.try_iter()? {
                if same(state, a, &key, 0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in b.try_iter()? {
                if same(state, a, &item, 0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        kind => Err(fault(format!(
            "`in` needs something to look into, not {kind}"
        ))),
    }
}

fn unfit(sign: &str, a: &Value, b: &Value) -> minijinja::Error {
    fault(format!(
        "`{sign}` cannot be applied to {} and {}",
        a.kind(),
        b.kind()
    ))
}

/// Integers where both are, else floats.
enum Numbers {
    Whole(i128, i128),
    Real(f64, f64),
}

fn numbers(a: &Value, b: &Value) -> Option<Numbers> {
    let whole = |v: &Value| v.is_integer() || v.kind() == ValueKind::Bool;
    if !is_number(a) || !is_number(b) {
        return None;
    }
    if whole(a) && whole(b) {
        let int = |v: &Value| i128::try_from(v.clone()).ok();
        return Some(Numbers::Whole(int(a)?, int(b)?));
    }
    let real = |v: &Value| match v.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(v.is_true()))),
        _ if v.is_integer() => i128::try_from(v.clone()).ok().map(|i| i as f64),
        _ => f64::try_from(v.clone()).ok(),
    };
    Some(Numbers::Real(real(a)?, real(b)?))
}

fn large() -> minijinja::Error {
    fault("a number is too large")
}

fn plus(state: &State, a: Value, b: Value) -> Made<Value> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        if a.is_safe() != b.is_safe() {
            return Err(fault(
                "`+` of an escaped and a plain string is not supported",
            ));
        }
        charge(state, x.len() + y.len())?;
        let text = format!("{x}{y}");
        return Ok(match a.is_safe() {
            true => Value::from_safe_string(text),
            false => Value::from(text),
        });
    }
    if is_list(&a) && is_list(&b) && a.is_tuple() == b.is_tuple() {
        let count = a.len().unwrap_or(0) + b.len().unwrap_or(0);
        charge(state, 32 * count)?;
        let items: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
        return Ok(match a.is_tuple() {
            true => Value::from(Tuple::from(items)),
            false => Value::from(items),
        });
    }
    match numbers(&a, &b) {
        Some(Numbers::Whole(x, y)) => x.checked_add(y).map(Value::from).ok_or_else(large),
        Some(Numbers::Real(x, y)) => Ok(Value::from(x + y)),
        None => Err(unfit("+", &a, &b)),
    }
}

fn times(state: &State, a: Value, b: Value) -> Made<Value> {
    match numbers(&a, &b) {
        Some(Numbers::Whole(x, y)) => return x.checked_mul(y).map(Value::from).ok_or_else(large),
        Some(Numbers::Real(x, y)) => return Ok(Value::from(x * y)),
        None => {}
    }
    let (many, count) = if is_number(&a) { (&b, &a) } else { (&a, &b) };
    if !is_number(count) || !(count.is_integer() || count.kind() == ValueKind::Bool) {
        return Err(unfit("*", &a, &b));
    }
    let count = i128::try_from(count.clone())?.max(0);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if let Some(text) = many.as_str() {
        charge(state, text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(if text.is_empty() {
            0
        } else {
            count
        })));
    }
    if !is_list(many) {
        return Err(unfit("*", &a, &b));
    }
    let items: Vec<Value> = many.try_iter()?.collect();
    charge(state, items.len().saturating_mul(count).saturating_mul(32))?;
    let count = if items.is_empty() { 0 } else { count };
    let all: Vec<Value> = (0..count).flat_map(|_| items.iter().cloned()).collect();
    Ok(match many.is_tuple() {
        true => Value::from(Tuple::from(all)),
        false => Value::from(all),
    })
}

fn modulo(state: &State, a: Value, b: Value) -> Made<Value> {
    if let Some(text) = a.as_str() {
        let widths = text.split(|c: char| !c.is_ascii_digit());
        let asked = widths.filter_map(|w| w.parse::<usize>().ok());
        charge(state, asked.fold(text.len(), usize::saturating_add))?;
        let args: Vec<Value> = match b.is_tuple() {
            true => b.try_iter()?.collect(),
            false => vec![b],
        };
        let fields = text.replace("%%", "").matches('%').count();
        if fields != args.len() {
            let why = format!("`%`: {fields} places and {} values", args.len());
            return Err(fault(why));
        }
        let args = args
            .into_iter()
            .map(|v| match is_number(&v) || v.as_str().is_some() {
                true => Ok(v),
                false => print::text(state, &v).map(Value::from),
            });
        let args = args.collect::<Made<Vec<Value>>>()?;
        return Ok(Value::from(format(FormatStyle::Printf, text, &args)?));
    }
    match numbers(&a, &b) {
        Some(Numbers::Whole(_, 0)) => Err(fault("`%` by zero")),
        Some(Numbers::Whole(x, y)) => {
            let rest = x.checked_rem(y).ok_or_else(large)?;
            let other_sign = rest != 0 && (rest < 0) != (y < 0);
            Ok(Value::from(if other_sign { rest + y } else { rest }))
        }
        Some(Numbers::Real(_, 0.0)) => Err(fault("`%` by zero")),
        Some(Numbers::Real(x, y)) => {
            let rest = x % y;
            let other_sign = rest != 0.0 && (rest < 0.0) != (y < 0.0);
            Ok(Value::from(if other_sign { rest + y } else { rest }))
        }
        None => Err(unfit("%", &a, &b)),
    }
}
