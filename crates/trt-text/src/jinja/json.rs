//! `tojson`: Python's `json.dumps`, without the escapes that Jinja's own adds for HTML.

use std::fmt::Write;

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{State, Value};

use super::args::{Args, int};
use super::containers::View;
use super::globals::Range;
use super::print::{self, Printer};
use super::{Made, charge, fault, order};

/// The filter.
pub(crate) fn filter(state: &State, value: Value, given: Rest<ValueOrKwargs>) -> Made<String> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let args = Args::of("tojson", given, &names)?;
    let indent = match args.some(1) {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_string),
        Some(count) => {
            let count = usize::try_from(int(count)?.max(0)).unwrap_or(usize::MAX);
            charge(state, count)?;
            Some(" ".repeat(count))
        }
    };
    let (mut item, key) = match args.some(2) {
        None => (", ".to_string(), ": ".to_string()),
        Some(pair) => {
            let parts: Vec<Value> = pair.try_iter()?.collect();
            match parts.as_slice() {
                [item, key] if item.as_str().is_some() && key.as_str().is_some() => {
                    (item.to_string(), key.to_string())
                }
                _ => return Err(fault("tojson: separators is not a pair of strings")),
            }
        }
    };
    if indent.is_some() && args.some(2).is_none() {
        item = ",".into();
    }
    let mut writer = Writer {
        out: Printer::new(state),
        ascii: args.flag(0),
        sort: args.flag(3),
        indent,
        item,
        key,
    };
    writer.value(&value, 0)?;
    writer.out.finish()
}

struct Writer<'a, 't, 'e> {
    out: Printer<'a, 't, 'e>,
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Made<()> {
        match value.kind() {
            ValueKind::None => self.out.put("null"),
            ValueKind::Bool => self.out.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.put(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable if is_list(value) => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.group(("[", "]"), &items, depth, |w, item, depth| {
                    w.value(item, depth)
                })
            }
            ValueKind::Map if value.as_object().is_some() => self.object(value, depth),
            _ => {
                let why = if value.is_undefined() {
                    "undefined"
                } else {
                    "an object"
                };
                Err(fault(format!("tojson: {why} is not JSON")))
            }
        }
    }

    fn object(&mut self, value: &Value, depth: usize) -> Made<()> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort {
            order::sort(self.out.state, &mut keys, |key| Ok(key.clone()))?;
        }
        self.group(("{", "}"), &keys, depth, |w, key, depth| {
            let name = match key.kind() {
                ValueKind::String => key.to_string(),
                ValueKind::None => "null".to_string(),
                ValueKind::Bool => key.is_true().to_string(),
                ValueKind::Number => number(key),
                kind => return Err(fault(format!("tojson: a key is a {kind}"))),
            };
            w.string(&name)?;
            let between = w.key.clone();
            w.out.put(&between)?;
            w.value(&value.get_item(key)?, depth)
        })
    }

    fn group(
        &mut self,
        (open, close): (&str, &str),
        items: &[Value],
        depth: usize,
        mut each: impl FnMut(&mut Self, &Value, usize) -> Made<()>,
    ) -> Made<()> {
        let inside = Printer::deeper(depth)?;
        self.out.put(open)?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                let between = self.item.clone();
                self.out.put(&between)?;
            }
            self.line(inside)?;
            each(self, item, inside)?;
        }
        if !items.is_empty() {
            self.line(depth)?;
        }
        self.out.put(close)
    }

    fn line(&mut self, depth: usize) -> Made<()> {
        let Some(indent) = self.indent.clone() else {
            return Ok(());
        };
        self.out.put("\n")?;
        (0..depth).try_for_each(|_| self.out.put(&indent))
    }

    fn string(&mut self, text: &str) -> Made<()> {
        let mut out = String::with_capacity(text.len() + 2);
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string does not fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        self.out.put(&out)
    }
}

/// Lists and parts of them; Python takes neither ranges nor what `items()` gives for JSON.
fn is_list(value: &Value) -> bool {
    value.downcast_object_ref::<Range>().is_none() && value.downcast_object_ref::<View>().is_none()
}

fn number(value: &Value) -> String {
    match print::number(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.into(),
    }
}
