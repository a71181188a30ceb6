//! What Python does with the characters of strings, where Rust's own functions do otherwise.

/// White space, as `str.isspace` has it.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Ends of lines, as `str.splitlines` has them.
fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// `str.splitlines`.
pub(crate) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut begin = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !ends_line(c) {
            continue;
        }
        let mut next = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, c)| *c == '\n').is_some() {
            next += 1;
        }
        lines.push(&text[begin..if keep_ends { next } else { at }]);
        begin = next;
    }
    if begin < text.len() {
        lines.push(&text[begin..]);
    }
    lines
}

/// `str.split`: at a separator, or at runs of white space; at most `most` times.
pub(crate) fn split(text: &str, separator: Option<&str>, most: usize) -> Vec<String> {
    if let Some(separator) = separator {
        let parts = text.splitn(most.saturating_add(1), separator);
        return parts.map(str::to_string).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        match rest.find(is_space) {
            Some(end) if parts.len() < most => {
                parts.push(rest[..end].to_string());
                rest = rest[end..].trim_start_matches(is_space);
            }
            Some(_) | None => {
                // What is left is not split, and keeps the blanks at its end only where it was cut short.
                parts.push(rest.to_string());
                break;
            }
        }
    }
    parts
}

/// `str.rsplit`, as [`split`] from the end.
pub(crate) fn rsplit(text: &str, separator: Option<&str>, most: usize) -> Vec<String> {
    let mut parts: Vec<String> = match separator {
        Some(separator) => text
            .rsplitn(most.saturating_add(1), separator)
            .map(str::to_string)
            .collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() {
                let found = rest.char_indices().rfind(|(_, c)| is_space(*c));
                match found {
                    Some((at, c)) if parts.len() < most => {
                        parts.push(rest[at + c.len_utf8()..].to_string());
                        rest = rest[..at].trim_end_matches(is_space);
                    }
                    Some(_) | None => {
                        parts.push(rest.to_string());
                        break;
                    }
                }
            }
            parts
        }
    };
    parts.reverse();
    parts
}

/// A letter as it begins a title.
pub(crate) fn title_char(c: char) -> String {
    match c {
        'Ǆ'..='ǆ' => "ǅ".into(),
        'Ǉ'..='ǉ' => "ǈ".into(),
        'Ǌ'..='ǌ' => "ǋ".into(),
        'Ǳ'..='ǳ' => "ǲ".into(),
        c => {
            let upper: Vec<char> = c.to_uppercase().collect();
            match upper.split_first() {
                Some((first, rest)) if first.is_ascii_alphabetic() && !rest.is_empty() => {
                    let rest = rest.iter().flat_map(|c| c.to_lowercase());
                    std::iter::once(*first).chain(rest).collect()
                }
                _ => upper.into_iter().collect(),
            }
        }
    }
}

/// `str.title`: a letter that follows no letter begins a word.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out += &title_char(c),
        }
        inside = cased(c);
    }
    out
}

/// `str.capitalize`.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => title_char(first) + &chars.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// Whether a character is a letter with a case.
pub(crate) fn cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || matches!(c, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ')
}

/// `str.istitle`.
pub(crate) fn is_title(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() || (cased(c) && !c.is_lowercase()) {
            if inside {
                return false;
            }
            (inside, any) = (true, true);
        } else if c.is_lowercase() {
            if !inside {
                return false;
            }
            any = true;
        } else {
            inside = false;
        }
    }
    any
}

/// A part of a text by numbers of characters, counted from the end where they are negative.
pub(crate) fn part(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let count = text.chars().count() as i64;
    let at = |n: i64| if n < 0 { (n + count).max(0) } else { n };
    let (start, end) = (at(start.unwrap_or(0)), at(end.unwrap_or(count)).min(count));
    if start > count || start > end {
        return None;
    }
    let byte = |n: i64| {
        text.char_indices()
            .nth(n as usize)
            .map_or(text.len(), |(i, _)| i)
    };
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// `str.expandtabs`.
pub(crate) fn expand_tabs(text: &str, size: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// An int as Python reads it from text.
pub(crate) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = match lower.strip_prefix(prefix) {
        Some(rest) if !prefix.is_empty() => rest.strip_prefix('_').unwrap_or(rest),
        _ => &lower,
    };
    let value = i128::from_str_radix(&plain_digits(digits)?, base).ok()?;
    Some(if negative { -value } else { value })
}

/// A float as Python reads it from text.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    plain_digits(text)?.parse().ok()
}

/// Digits without the single `_` that may stand between them.
fn plain_digits(text: &str) -> Option<String> {
    let fine = !text.is_empty()
        && !text.starts_with(['_', '+'])
        && !text.ends_with('_')
        && !text.contains("__");
    let signed = text.starts_with('+') && !text.starts_with("+_") && !text.starts_with("++");
    (fine || signed).then(|| text.replace('_', ""))
}
