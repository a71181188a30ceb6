//! Methods of Python's strings.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error as Fault, ErrorKind, State, Value};

use super::args::Args;
use super::{Made, charge, containers, fault, strings};

/// Called where a value has no such method of its own.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Made<Value> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => {
            charge(state, text.len())?;
            match shapes(state, text, method, args).transpose() {
                Some(made) => made,
                None => search(text, method, args)?
                    .or(cut(state, text, method, args)?)
                    .or(questions(text, method, args)?)
                    .ok_or_else(|| Fault::from(ErrorKind::UnknownMethod)),
            }
        }
        (ValueKind::Map, None) => containers::dict(value, method, args),
        (ValueKind::Seq | ValueKind::Iterable, None) => {
            containers::list(state, value, method, args)
        }
        _ => Err(Fault::from(ErrorKind::UnknownMethod)),
    }
}

pub(crate) fn none(method: &str, args: &[Value]) -> Made<()> {
    Args::bind(method, args, &[]).map(drop)
}

/// Methods that give the same text in another shape.
fn shapes(state: &State, text: &str, method: &str, args: &[Value]) -> Made<Option<Value>> {
    let made = match method {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "title" => strings::title(text),
        "capitalize" => strings::capitalize(text),
        "swapcase" => text
            .chars()
            .flat_map(|c| -> Vec<char> {
                match c.is_uppercase() {
                    true => c.to_lowercase().collect(),
                    false => c.to_uppercase().collect(),
                }
            })
            .collect(),
        "casefold" if text.chars().all(|c| c.is_ascii() || c == 'ß') => {
            text.to_lowercase().replace('ß', "ss")
        }
        "casefold" => return Err(fault("casefold of such letters is not supported")),
        "strip" | "lstrip" | "rstrip" => return strip(text, method, args).map(Some),
        "replace" => return replace(state, text, args).map(Some),
        "center" | "ljust" | "rjust" => return pad(state, text, method, args).map(Some),
        "zfill" => return zfill(state, text, args).map(Some),
        "expandtabs" => {
            let args = Args::bind(method, args, &["tabsize"])?;
            let size = usize::try_from(args.int(0)?.unwrap_or(8)).unwrap_or(0);
            let tabs = text.matches('\t').count();
            charge(state, tabs.saturating_mul(size))?;
            return Ok(Some(Value::from(strings::expand_tabs(text, size))));
        }
        "removeprefix" | "removesuffix" => {
            let args = Args::bind(method, args, &["affix"])?;
            let affix = args.text(0)?.ok_or_else(|| fault("it needs a string"))?;
            let rest = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            return Ok(Some(Value::from(rest.unwrap_or(text))));
        }
        "format" => return formatted(state, text, args).map(Some),
        _ => return Ok(None),
    };
    none(method, args)?;
    Ok(Some(Value::from(made)))
}

fn strip(text: &str, method: &str, args: &[Value]) -> Made<Value> {
    let args = Args::bind(method, args, &["chars"])?;
    let chars = args.text(0)?;
    let drop = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => strings::is_space(c),
    };
    Ok(Value::from(match method {
        "strip" => text.trim_matches(drop),
        "lstrip" => text.trim_start_matches(drop),
        _ => text.trim_end_matches(drop),
    }))
}

/// `str.replace`, also as a filter.
pub(crate) fn replaced(
    state: &State,
    text: &str,
    (old, new): (&str, &str),
    count: Option<i64>,
) -> Made<String> {
    let most = count
        .and_then(|c| usize::try_from(c).ok())
        .unwrap_or(usize::MAX);
    let found = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(old).count(),
    };
    charge(state, found.min(most).saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, most))
}

fn replace(state: &State, text: &str, args: &[Value]) -> Made<Value> {
    let args = Args::bind("replace", args, &["old", "new", "count"])?;
    let (Some(old), Some(new)) = (args.text(0)?, args.text(1)?) else {
        return Err(fault("replace needs two strings"));
    };
    replaced(state, text, (old, new), args.int(2)?).map(Value::from)
}

/// Fills a text up to a width in characters: left and right of it.
pub(crate) fn padded(
    state: &State,
    text: &str,
    (width, fill): (i64, char),
    left: impl FnOnce(usize) -> usize,
) -> Made<String> {
    let count = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(count);
    charge(state, missing.saturating_mul(fill.len_utf8()))?;
    let left = left(missing);
    let blanks = |n: usize| std::iter::repeat_n(fill, n);
    let mut out: String = blanks(left).collect();
    out += text;
    out.extend(blanks(missing - left));
    Ok(out)
}

fn pad(state: &State, text: &str, method: &str, args: &[Value]) -> Made<Value> {
    let args = Args::bind(method, args, &["width", "fillchar"])?;
    let width = args.int(0)?.ok_or_else(|| fault("it needs a width"))?;
    let mut fill = args.text(1)?.unwrap_or(" ").chars();
    let (Some(fill), None) = (fill.next(), fill.next()) else {
        return Err(fault("the fill character must be exactly one"));
    };
    let left = |missing: usize| match method {
        "ljust" => 0,
        "rjust" => missing,
        // Where it cannot be even, Python puts more on the left of an odd width.
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    padded(state, text, (width, fill), left).map(Value::from)
}

fn zfill(state: &State, text: &str, args: &[Value]) -> Made<Value> {
    let args = Args::bind("zfill", args, &["width"])?;
    let width = args.int(0)?.ok_or_else(|| fault("zfill needs a width"))?;
    let sign = text.starts_with(['+', '-']) as usize;
    let (sign, digits) = text.split_at(sign);
    let width = width.saturating_sub(sign.len() as i64);
    let digits = padded(state, digits, (width, '0'), |missing| missing)?;
    Ok(Value::from(format!("{sign}{digits}")))
}

/// The widths that a format asks for come before the text that they make.
fn formatted(state: &State, text: &str, args: &[Value]) -> Made<Value> {
    let widths = text.split(|c: char| !c.is_ascii_digit());
    let asked = widths.filter_map(|w| w.parse::<usize>().ok());
    charge(state, asked.fold(0, usize::saturating_add))?;
    Ok(Value::from(format(FormatStyle::StrFormat, text, args)?))
}

/// Methods that look for a text in another.
fn search(text: &str, method: &str, args: &[Value]) -> Made<Option<Value>> {
    if !matches!(
        method,
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith"
    ) {
        return Ok(None);
    }
    let args = Args::bind(method, args, &["sub", "start", "end"])?;
    let inside = strings::part(text, args.int(1)?, args.int(2)?);
    if method.ends_with("with") {
        return affix(method, inside.map(|(_, part)| part), args.get(0)).map(Some);
    }
    let wanted = args.text(0)?.ok_or_else(|| fault("it needs a string"))?;
    let Some((skipped, part)) = inside else {
        return match method {
            "count" => Ok(Some(Value::from(0))),
            "find" | "rfind" => Ok(Some(Value::from(-1))),
            _ => Err(fault("substring not found")),
        };
    };
    let found = match method {
        "count" if wanted.is_empty() => return Ok(Some(Value::from(part.chars().count() + 1))),
        "count" => return Ok(Some(Value::from(part.matches(wanted).count()))),
        "find" | "index" => part.find(wanted),
        _ => part.rfind(wanted),
    };
    match found {
        Some(at) => Ok(Some(Value::from(skipped + part[..at].chars().count()))),
        None if method.ends_with("find") => Ok(Some(Value::from(-1))),
        None => Err(fault("substring not found")),
    }
}

/// `startswith` and `endswith`, of one string or any of a tuple.
fn affix(method: &str, text: Option<&str>, wanted: Option<&Value>) -> Made<Value> {
    let wanted = wanted.ok_or_else(|| fault(format!("{method} needs a string")))?;
    let is = |affix: &str| match (text, method) {
        (None, _) => false,
        (Some(text), "startswith") => text.starts_with(affix),
        (Some(text), _) => text.ends_with(affix),
    };
    if let Some(one) = wanted.as_str() {
        return Ok(Value::from(is(one)));
    }
    if !wanted.is_tuple() {
        return Err(fault(format!(
            "{method} needs a string or a tuple of strings, not {}",
            wanted.kind()
        )));
    }
    let mut any = false;
    for one in wanted.try_iter()? {
        match one.as_str() {
            Some(one) => any |= is(one),
            None => return Err(fault(format!("{method}: the tuple has a {}", one.kind()))),
        }
    }
    Ok(Value::from(any))
}

/// Methods that cut a text into pieces, or join pieces.
fn cut(state: &State, text: &str, method: &str, args: &[Value]) -> Made<Option<Value>> {
    let made: Value = match method {
        "split" | "rsplit" => {
            let args = Args::bind(method, args, &["sep", "maxsplit"])?;
            let separator = args.text(0)?;
            if separator == Some("") {
                return Err(fault("empty separator"));
            }
            let most = args.int(1)?.and_then(|n| usize::try_from(n).ok());
            let most = most.unwrap_or(usize::MAX);
            charge(state, text.len().saturating_mul(8))?;
            let parts = match method {
                "split" => strings::split(text, separator, most),
                _ => strings::rsplit(text, separator, most),
            };
            parts.into_iter().collect()
        }
        "splitlines" => {
            let args = Args::bind(method, args, &["keepends"])?;
            charge(state, text.len().saturating_mul(8))?;
            let lines = strings::lines(text, args.flag(0));
            lines.into_iter().collect()
        }
        "partition" | "rpartition" => {
            let args = Args::bind(method, args, &["sep"])?;
            let separator = args.text(0)?.filter(|s| !s.is_empty());
            let separator = separator.ok_or_else(|| fault("it needs a separator"))?;
            let parts = match method {
                "partition" => text.split_once(separator),
                _ => text.rsplit_once(separator),
            };
            let parts = match parts {
                Some((before, after)) => [before, separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "join" => {
            let args = Args::bind(method, args, &["iterable"])?;
            let items = args.get(0).ok_or_else(|| fault("join needs strings"))?;
            let mut out = String::new();
            for (i, item) in items.try_iter()?.enumerate() {
                let Some(item) = item.as_str() else {
                    let why = format!("join: item {i} is a {}, not a string", item.kind());
                    return Err(fault(why));
                };
                let between = if i > 0 { text } else { "" };
                charge(state, between.len() + item.len())?;
                out += between;
                out += item;
            }
            Value::from(out)
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

/// Methods that ask what characters a text has.
fn questions(text: &str, method: &str, args: &[Value]) -> Made<Option<Value>> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    let cased = text.chars().any(strings::cased);
    let answer = match method {
        "isspace" => all(strings::is_space),
        "isascii" => text.is_ascii(),
        "islower" => cased && !text.chars().any(|c| strings::cased(c) && !c.is_lowercase()),
        "isupper" => cased && !text.chars().any(|c| strings::cased(c) && !c.is_uppercase()),
        "istitle" => strings::is_title(text),
        "isalpha" => known(text, method, char::is_alphabetic)?,
        "isalnum" => known(text, method, char::is_alphanumeric)?,
        "isdigit" | "isdecimal" => digits(text, method)?,
        "isnumeric" => known(text, method, char::is_numeric)?,
        "isidentifier" if text.is_ascii() => {
            !text.starts_with(|c: char| c.is_ascii_digit())
                && all(|c| c.is_ascii_alphanumeric() || c == '_')
        }
        "isprintable" if text.is_ascii() => text.chars().all(|c| (' '..='~').contains(&c)),
        _ => return Ok(None),
    };
    none(method, args)?;
    Ok(Some(Value::from(answer)))
}

/// What is asked of every character, where Rust's answer is Python's: in scripts whose letters are all simple.
fn known(text: &str, method: &str, is: fn(char) -> bool) -> Made<bool> {
    let simple = |c: char| {
        matches!(c, '\0'..='\u{2ff}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{52f}'
            | '\u{2000}'..='\u{206f}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}'
            | '\u{ac00}'..='\u{d7a3}' | '\u{1f300}'..='\u{1faff}')
            || (method != "isnumeric" && matches!(c, '\u{4e00}'..='\u{9fff}'))
    };
    match text.chars().find(|c| !simple(*c)) {
        Some(c) => Err(fault(format!("{method} of {c:?} is not supported"))),
        None => Ok(!text.is_empty() && text.chars().all(is)),
    }
}

fn digits(text: &str, method: &str) -> Made<bool> {
    let mut rest = text.chars().filter(|c| !c.is_ascii_digit());
    match rest.find(|c| c.is_numeric()) {
        // Other scripts have digits, and some numbers are digits but no decimals.
        Some('²' | '³' | '¹') if method == "isdecimal" => Ok(false),
        Some('²' | '³' | '¹') if text.chars().count() == 1 => Ok(true),
        Some(c) => Err(fault(format!("{method} of {c:?} is not supported"))),
        None => Ok(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
    }
}
