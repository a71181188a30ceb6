//! The source of a template, as `minijinja` has to see it.
//!
//! Jinja reads every kind of line end as one and keeps the line end after `{% raw %}`. What is set in the body of `filter` or
//! of a `set` without a value stays there, so such a body is put into a `with`. transformers adds the tag `generation`,
//! whose body has a scope of its own as well.

use super::{Made, fault};

/// The most parts (words, numbers, strings, operators) that one tag may have. Each can nest an expression by one more,
/// and what walks through expressions calls itself for each.
const PARTS: usize = 1000;
/// The most that the numbers of an expression with strings may come to.
const REPEATED: u64 = 1_000_000;
/// The most `elif` of a template, each of which is inside the one before it.
const BRANCHES: usize = 500;

/// The source with these put right.
pub(crate) fn prepared(source: &str) -> Made<String> {
    if source.matches("elif").count() > BRANCHES {
        return Err(fault(format!("it has more than {BRANCHES} `elif`")));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut scopes = Vec::new();
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |at| at + 2),
            Some(b'{') => {
                let end = end_of(rest, "}}");
                limited(&rest[..end])?;
                end
            }
            Some(b'%') => {
                rest = tag(rest, &mut out, &mut scopes)?;
                continue;
            }
            _ => 1,
        };
        out += &rest[..end];
        rest = &rest[end..];
    }
    Ok(out + rest)
}

/// Where a tag or expression ends that `text` begins with: after the first `close` outside of strings and brackets.
fn end_of(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (2, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            _ if open == 0 && bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            quote @ (b'\'' | b'"') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        at += 1;
        while at < bytes.len() && !text.is_char_boundary(at) {
            at += 1;
        }
    }
    text.len()
}

/// Counts the parts of a tag or expression.
fn limited(text: &str) -> Made<()> {
    let (mut parts, mut word, mut quote) = (0, false, None);
    let mut escaped = false;
    for c in text.chars() {
        match quote {
            Some(_) if std::mem::take(&mut escaped) => {}
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => {
                let more = c.is_alphanumeric() || c == '_';
                let goes_on = c.is_whitespace() || (more && word);
                parts += usize::from(!goes_on);
                word = more;
                quote = (c == '\'' || c == '"').then_some(c);
            }
        }
    }
    match parts > PARTS {
        true => Err(fault(format!("an expression has more than {PARTS} parts"))),
        false => repeated(text),
    }
}

/// What is known when a template is read is computed then, before there is fuel: texts must not be repeated without end.
fn repeated(text: &str) -> Made<()> {
    if !text.contains('*') || !text.contains(['\'', '"', '[', '(']) {
        return Ok(());
    }
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '_');
    let numbers = numbers.filter_map(|n| n.replace('_', "").parse::<u64>().ok());
    let product = numbers.fold(1, |all: u64, n| all.saturating_mul(n.max(1)));
    match product > REPEATED || text.contains("**") {
        true => Err(fault(format!(
            "an expression that may repeat a text more than {REPEATED} times is not supported"
        ))),
        false => Ok(()),
    }
}

/// Copies a tag; what follows it.
fn tag<'a>(text: &'a str, out: &mut String, scopes: &mut Vec<&'a str>) -> Made<&'a str> {
    let end = end_of(text, "%}");
    let (whole, rest) = text.split_at(end);
    limited(whole)?;
    let inside = whole[2..].trim_start_matches(['-', '+']);
    let inside = inside.trim_start();
    let length = inside.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &inside[..length.unwrap_or(inside.len())];
    let (before, after) = whole.split_at(whole.len() - inside.len());
    let after = &after[name.len()..];
    match name {
        "set" if assigns(after) => {}
        "for" | "with" | "filter" | "set" | "generation" | "macro" | "call" => scopes.push(name),
        "break" | "continue" => inside_of_loop(name, scopes)?,
        _ if name.strip_prefix("end") == scopes.last().copied() => drop(scopes.pop()),
        _ => {}
    }
    match name {
        "generation" => *out += &format!("{before}with{after}"),
        // Their bodies have scopes of their own, too.
        "filter" => *out += &opened(whole),
        "set" if !assigns(after) => *out += &opened(whole),
        "endfilter" | "endset" => {
            let end = tag_end(whole);
            *out += &format!("{before}endwith -%}}{{%- {name} {}", &whole[end..]);
        }
        "endgeneration" => *out += &format!("{before}endwith{after}"),
        "autoescape" if after.trim_start().starts_with("true") => {
            return Err(fault("autoescape is not supported"));
        }
        "with" | "macro" => {
            own_names(name, after)?;
            *out += whole;
        }
        "raw" => {
            *out += whole;
            // The first line end after it would be dropped.
            if rest.starts_with('\n') && !whole.ends_with("-%}") {
                out.push('\n');
            }
            let end = end_of_raw(rest);
            *out += &rest[..end];
            return Ok(&rest[end..]);
        }
        _ => *out += whole,
    }
    Ok(rest)
}

/// Leaving a loop from inside of another scope would leave that scope open.
fn inside_of_loop(name: &str, scopes: &[&str]) -> Made<()> {
    match scopes.last() {
        Some(&"for") => Ok(()),
        Some(scope) => Err(fault(format!(
            "`{name}` inside of `{scope}` is not supported"
        ))),
        None => Err(fault(format!("`{name}` is outside of a loop"))),
    }
}

/// A tag, and one behind it that opens a scope. No white space comes between them.
fn opened(tag: &str) -> String {
    let (tag, end) = tag.split_at(tag_end(tag));
    format!("{tag} -%}}{{%- with {end}")
}

/// Where the end of a tag begins, with its sign for white space.
fn tag_end(tag: &str) -> usize {
    let inside = tag.strip_suffix("%}").unwrap_or(tag);
    inside.strip_suffix(['-', '+']).unwrap_or(inside).len()
}

/// Whether `set` has a value: a `=` that is no part of a string or of an argument.
fn assigns(text: &str) -> bool {
    end_of(&format!("{{%{text}"), "=") < text.len() + 2
}

/// Where the tag begins that ends a raw block.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(found) = text[from..].find("{%") {
        let at = from + found;
        let inside = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// Jinja computes the values of `with a = 1, b = a` before it sets any of them, and the defaults of a macro
/// after the arguments before them; `minijinja` does either the other way.
fn own_names(tag: &str, text: &str) -> Made<()> {
    let mut names: Vec<&str> = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    for part in text.trim_end_matches("%}").split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let mut words = value.split(|c| !word(c));
        if let Some(word) = words.find(|word| names.contains(word)) {
            let why = format!("a `{tag}` that uses {word}, which it sets, is not supported");
            return Err(fault(why));
        }
        let name = name.rsplit('(').next().unwrap_or(name);
        names.push(name.trim_matches(|c| !word(c)));
    }
    Ok(())
}
