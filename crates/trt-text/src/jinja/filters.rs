//! Filters (`x | join`) where Python's result is another than `minijinja`'s, or where it has none.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, State, Value, filters};

use super::args::{Args, int};
use super::ops::bounded;
use super::order::attribute;
use super::{Made, charge, fault, json, methods, print, sorting, strings};

pub(crate) type Given = Rest<ValueOrKwargs>;

pub(crate) fn add(jinja: &mut Environment<'_>) {
    // Lines of 80 characters, and attributes of Python's objects.
    for name in ["pprint", "attr", "lines", "chain", "zip", "bool", "split"] {
        jinja.remove_filter(name);
    }
    jinja.add_filter("tojson", json::filter);
    jinja.add_filter("string", |s: &State, v: Value| match v.as_str() {
        Some(_) => Ok(v),
        None => print::text(s, &v).map(Value::from),
    });
    for name in ["escape", "e"] {
        jinja.add_filter(name, |s: &State, v: Value| match v.is_safe() {
            true => Ok(v),
            false => escape(s, &v),
        });
    }
    jinja.add_filter("forceescape", |s: &State, v: Value| escape(s, &v));
    text_filters(jinja);
    number_filters(jinja);
    jinja.add_filter("default", default);
    jinja.add_filter("d", default);
    jinja.add_filter("join", join);
    jinja.add_filter("sort", sorting::sorted);
    jinja.add_filter("dictsort", sorting::dictsort);
    jinja.add_filter("unique", sorting::unique);
    jinja.add_filter("groupby", sorting::groupby);
    jinja.add_filter(
        "batch",
        |s: &State, v: Value, n: usize, fill: Option<Value>| {
            bounded(s, filters::batch(s, v, n, fill)?)
        },
    );
    jinja.add_filter(
        "slice",
        |s: &State, v: Value, n: usize, fill: Option<Value>| {
            bounded(s, filters::slice(s, v, n, fill)?)
        },
    );
    jinja.add_filter("min", |s: &State, v: Value, g: Given| {
        sorting::extreme(s, v, g, Ordering::Less)
    });
    jinja.add_filter("max", |s: &State, v: Value, g: Given| {
        sorting::extreme(s, v, g, Ordering::Greater)
    });
}

fn text_filters(jinja: &mut Environment<'_>) {
    jinja.add_filter("upper", |s: &State, v: Value| {
        shaped(s, &v, str::to_uppercase)
    });
    jinja.add_filter("lower", |s: &State, v: Value| {
        shaped(s, &v, str::to_lowercase)
    });
    jinja.add_filter("capitalize", |s: &State, v: Value| {
        shaped(s, &v, strings::capitalize)
    });
    jinja.add_filter("title", |s: &State, v: Value| shaped(s, &v, title));
    jinja.add_filter("trim", |s: &State, v: Value, given: Given| -> Made<Value> {
        let args = Args::of("trim", given, &["chars"])?;
        let chars = args.text(0)?;
        shaped(s, &v, |text| {
            let drop = |c: char| chars.map_or_else(|| strings::is_space(c), |all| all.contains(c));
            text.trim_matches(drop).to_string()
        })
    });
    jinja.add_filter(
        "center",
        |s: &State, v: Value, given: Given| -> Made<Value> {
            let args = Args::of("center", given, &["width"])?;
            let width = args.int(0)?.unwrap_or(80);
            let odd = usize::try_from(width).unwrap_or(0) & 1;
            let text = print::text(s, &v)?;
            let left = |missing: usize| missing / 2 + (missing & odd);
            methods::padded(s, &text, (width, ' '), left).map(Value::from)
        },
    );
    jinja.add_filter(
        "replace",
        |s: &State, v: Value, given: Given| -> Made<Value> {
            let args = Args::of("replace", given, &["old", "new", "count"])?;
            let (Some(old), Some(new)) = (args.get(0), args.get(1)) else {
                return Err(fault("replace needs what to replace, and by what"));
            };
            let (old, new) = (print::text(s, old)?, print::text(s, new)?);
            let text = print::text(s, &v)?;
            methods::replaced(s, &text, (&old, &new), args.int(2)?).map(Value::from)
        },
    );
    jinja.add_filter("indent", indent);
    jinja.add_filter("wordcount", |s: &State, v: Value| -> Made<usize> {
        let text = print::text(s, &v)?;
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        Ok(words.filter(|w| !w.is_empty()).count())
    });
}

fn shaped(state: &State, value: &Value, shape: impl FnOnce(&str) -> String) -> Made<Value> {
    let text = shape(&print::text(state, value)?);
    charge(state, text.len())?;
    Ok(match value.is_safe() {
        true => Value::from_safe_string(text),
        false => Value::from(text),
    })
}

/// Words begin after blanks and opening brackets.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut first = true;
    for c in text.chars() {
        if strings::is_space(c) || "-({[<".contains(c) {
            first = true;
            out.push(c);
        } else if std::mem::take(&mut first) {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

fn escape(state: &State, value: &Value) -> Made<Value> {
    let text = print::text(state, value)?;
    charge(state, text.len().saturating_mul(5))?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Ok(Value::from_safe_string(out))
}

fn indent(state: &State, value: Value, given: Given) -> Made<String> {
    let args = Args::of("indent", given, &["width", "first", "blank"])?;
    let (first, blank) = (args.flag(1), args.flag(2));
    // An added line end makes a text that ends with one keep it.
    let text = print::text(state, &value)? + "\n";
    let lines = strings::lines(&text, false);
    let indention = match args.some(0) {
        None => "    ".to_string(),
        Some(width) => match width.as_str() {
            Some(text) => text.to_string(),
            None => {
                let width = usize::try_from(int(width)?).unwrap_or(0);
                charge(state, width.saturating_mul(lines.len()))?;
                " ".repeat(width)
            }
        },
    };
    charge(state, indention.len().saturating_mul(lines.len()))?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let wanted = if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if wanted {
            out += &indention;
        }
        out += line;
    }
    Ok(out)
}

fn number_filters(jinja: &mut Environment<'_>) {
    jinja.add_filter("int", |value: Value, given: Given| -> Made<Value> {
        let args = Args::of("int", given, &["default", "base"])?;
        defined(&value)?;
        let base = args.int(1)?.unwrap_or(10);
        let default = args.get(0).cloned().unwrap_or_else(|| Value::from(0));
        let Some(text) = value.as_str() else {
            return Ok(whole(&value)?.unwrap_or(default));
        };
        let base = u32::try_from(base).ok().filter(|b| (2..=36).contains(b));
        let base = base.ok_or_else(|| fault("int: the base is from 2 to 36"))?;
        if let Some(number) = strings::parse_int(text, base) {
            return Ok(Value::from(number));
        }
        match strings::parse_float(text).map(Value::from) {
            Some(number) => Ok(whole(&number)?.unwrap_or(default)),
            None => Ok(default),
        }
    });
    jinja.add_filter("float", |value: Value, given: Given| -> Made<Value> {
        let args = Args::of("float", given, &["default"])?;
        defined(&value)?;
        let number = match value.as_str() {
            Some(text) => strings::parse_float(text),
            None if matches!(value.kind(), ValueKind::Number | ValueKind::Bool) => {
                f64::try_from(value.clone()).ok()
            }
            None => None,
        };
        let default = || args.get(0).cloned().unwrap_or_else(|| Value::from(0.0));
        Ok(number.map_or_else(default, Value::from))
    });
}

pub(crate) fn defined(value: &Value) -> Made<()> {
    match value.is_undefined() {
        true => Err(fault("it is undefined")),
        false => Ok(()),
    }
}

/// A number without its fraction.
fn whole(value: &Value) -> Made<Option<Value>> {
    match value.kind() {
        ValueKind::Bool => Ok(Some(Value::from(i64::from(value.is_true())))),
        ValueKind::Number if value.is_integer() => Ok(Some(value.clone())),
        ValueKind::Number => {
            let number = f64::try_from(value.clone())?.trunc();
            match number.abs() < 1e38 {
                true => Ok(Some(Value::from(number as i128))),
                false => Err(fault(format!("{} is no int", print::float(number)))),
            }
        }
        _ => Ok(None),
    }
}

fn default(value: Value, given: Given) -> Made<Value> {
    let args = Args::of("default", given, &["default_value", "boolean"])?;
    let missing = value.is_undefined() || (args.flag(1) && !value.is_true());
    let default = || args.get(0).cloned().unwrap_or_else(|| Value::from(""));
    Ok(if missing { default() } else { value })
}

pub(crate) fn items(state: &State, value: &Value) -> Made<Vec<Value>> {
    if matches!(
        value.kind(),
        ValueKind::None | ValueKind::Bool | ValueKind::Number
    ) {
        return Err(fault(format!("{} is not iterable", value.kind())));
    }
    charge(state, 32 * value.len().unwrap_or(0))?;
    Ok(value.try_iter()?.collect())
}

fn join(state: &State, value: Value, given: Given) -> Made<String> {
    let args = Args::of("join", given, &["d", "attribute"])?;
    let between = args
        .get(0)
        .map_or(Ok(String::new()), |d| print::text(state, d))?;
    let mut out = String::new();
    for (i, item) in items(state, &value)?.iter().enumerate() {
        let item = match args.some(1) {
            Some(path) => print::text(state, &attribute(state, item, path)?)?,
            None => print::text(state, item)?,
        };
        let between = if i > 0 { between.as_str() } else { "" };
        charge(state, between.len() + item.len())?;
        out += between;
        out += &item;
    }
    Ok(out)
}
