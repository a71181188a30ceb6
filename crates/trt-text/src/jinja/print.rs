//! Values as Python prints them.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{State, Value};

use super::containers::View;
use super::globals::Range;
use super::{Made, charge, fault, room};

/// How deep values may be nested to be printed.
const DEPTH: usize = 64;

/// `str(value)`.
pub(crate) fn text(state: &State, value: &Value) -> Made<String> {
    let mut printer = Printer::new(state);
    match value.as_str() {
        Some(text) => printer.put(text)?,
        None if value.is_undefined() => {}
        None => printer.repr(value, 0)?,
    }
    printer.finish()
}

/// Text that grows as long as there is fuel for it: what is printed may be far larger than what it is printed from.
pub(crate) struct Printer<'a, 't, 'e> {
    pub state: &'a State<'t, 'e>,
    out: String,
    room: usize,
}

impl<'a, 't, 'e> Printer<'a, 't, 'e> {
    pub fn new(state: &'a State<'t, 'e>) -> Self {
        Printer {
            room: room(state),
            out: String::new(),
            state,
        }
    }

    pub fn put(&mut self, text: &str) -> Made<()> {
        if self.out.len() + text.len() > self.room {
            // There is not enough: this fails.
            charge(self.state, self.room.saturating_add(64))?;
        }
        self.out += text;
        Ok(())
    }

    pub fn finish(self) -> Made<String> {
        charge(self.state, self.out.len())?;
        Ok(self.out)
    }

    /// What is deeper than any data is not printed.
    pub fn deeper(depth: usize) -> Made<usize> {
        match depth < DEPTH {
            true => Ok(depth + 1),
            false => Err(fault("a value is nested too deep to be printed")),
        }
    }

    fn repr(&mut self, value: &Value, depth: usize) -> Made<()> {
        let depth = Self::deeper(depth)?;
        match value.kind() {
            ValueKind::Undefined => self.put("Undefined"),
            ValueKind::None => self.put("None"),
            ValueKind::Bool => self.put(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => self.put(&number(value)),
            ValueKind::String => self.quoted(value.as_str().unwrap_or_default()),
            ValueKind::Seq => self.sequence(value, depth),
            ValueKind::Iterable if value.downcast_object_ref::<Range>().is_some() => {
                self.put(&value.to_string())
            }
            ValueKind::Iterable => match value.downcast_object_ref::<View>() {
                Some(view) => {
                    self.put(view.name)?;
                    self.put("(")?;
                    self.sequence(value, depth)?;
                    self.put(")")
                }
                // A part of a list, or two of them.
                None => self.sequence(value, depth),
            },
            ValueKind::Map => self.mapping(value, depth),
            ValueKind::Plain if value.as_object().is_some() => self.put(&value.to_string()),
            _ => Err(fault(format!("{} cannot be printed", value.kind()))),
        }
    }

    fn sequence(&mut self, value: &Value, depth: usize) -> Made<()> {
        let tuple = value.is_tuple();
        self.put(if tuple { "(" } else { "[" })?;
        let mut count = 0;
        for item in value.try_iter()? {
            if count > 0 {
                self.put(", ")?;
            }
            self.repr(&item, depth)?;
            count += 1;
        }
        self.put(match (tuple, count) {
            (true, 1) => ",)",
            (true, _) => ")",
            (false, _) => "]",
        })
    }

    fn mapping(&mut self, value: &Value, depth: usize) -> Made<()> {
        self.put("{")?;
        for (i, key) in value.try_iter()?.enumerate() {
            if i > 0 {
                self.put(", ")?;
            }
            self.repr(&key, depth)?;
            self.put(": ")?;
            self.repr(&value.get_item(&key)?, depth)?;
        }
        self.put("}")
    }

    fn quoted(&mut self, text: &str) -> Made<()> {
        let quote = match text.contains('\'') && !text.contains('"') {
            true => '"',
            false => '\'',
        };
        let mut out = String::with_capacity(text.len() + 2);
        out.push(quote);
        for c in text.chars() {
            escaped(&mut out, c, quote);
        }
        out.push(quote);
        self.put(&out)
    }
}

fn escaped(out: &mut String, c: char, quote: char) {
    let code = c as u32;
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c == quote => {
            out.push('\\');
            out.push(c);
        }
        ' '..='~' => out.push(c),
        c if printable(c) => out.push(c),
        // Writing to a string does not fail.
        _ if code < 0x100 => drop(write!(out, "\\x{code:02x}")),
        _ if code < 0x1_0000 => drop(write!(out, "\\u{code:04x}")),
        _ => drop(write!(out, "\\U{code:08x}")),
    }
}

/// Whether Python shows a character as it is: no control, separator, format, private or unassigned one.
fn printable(c: char) -> bool {
    // Rust escapes the same characters, and combining marks at the beginning of a text, which Python shows.
    let mut escape = c.escape_debug();
    if escape.next() != Some('\\') {
        return !(c.is_whitespace() && c != ' ');
    }
    c.is_alphanumeric() || is_mark(c)
}

/// Combining marks: a letter before them hides that they extend it.
fn is_mark(c: char) -> bool {
    let pair: String = ['a', c].iter().collect();
    !pair.escape_debug().any(|c| c == '\\')
}

/// `str()` of an int or a float.
pub(crate) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// The shortest digits that give the number again; with an exponent from 1e16 on and below 1e-4.
pub(crate) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        e if (-4..16).contains(&e) => format!("{number:?}"),
        e => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
    }
}
