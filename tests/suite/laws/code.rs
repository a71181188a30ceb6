//! The text of a source file as the laws read it: code without comments, text literals and tests.

/// Code with comments and the insides of literals taken out, and without what only tests see.
pub fn code(text: &str) -> String {
    without_tests(&without_literals(text))
}

/// A word of code: letters, digits and `_`.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a text has these words, next to none that would make them others.
pub fn names(code: &str, words: &str) -> bool {
    let (first, last) = (words.starts_with(is_word), words.ends_with(is_word));
    code.match_indices(words).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + words.len()..]);
        !(first && before.ends_with(is_word) || last && after.starts_with(is_word))
    })
}

fn without_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => string_end(rest),
            'r' if !out.ends_with(is_word) => raw_end(rest),
            '\'' => char_end(rest),
            _ => 0,
        };
        match end {
            0 => out.push(c),
            _ if c == '/' => {}
            // What a literal says is no code; that it was there is.
            _ => out.push_str("\"\""),
        }
        rest = &rest[end.max(c.len_utf8())..];
    }
    out
}

/// The end of a text literal that starts here.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The end of a raw text literal that starts here, or 0 if none does.
fn raw_end(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let Some(inside) = text[1 + hashes..].strip_prefix('"') else {
        return 0;
    };
    let close = format!("\"{}", "#".repeat(hashes));
    let skipped = text.len() - inside.len();
    inside
        .find(&close)
        .map_or(text.len(), |at| skipped + at + close.len())
}

/// The end of a character that starts here, or 0 for a lifetime.
fn char_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(0, |at| {
            // `'\''` ends one further.
            let more = usize::from(at == 0);
            2 + at + 1 + more
        }),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Takes out what follows each `#[cfg(test)]`: an item to its `;` or the end of its braces.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        let mut depth = 0usize;
        let end = rest.char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && (c == ';' || c == '}')).then_some(i + 1)
        });
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    out + rest
}

#[test]
fn what_is_no_code_is_not_read() {
    let text = r##"
        use a::b; // c::d
        /* e::f */ let s = "g::h \" i::j"; let r = r#"k::l " m"#; let c = '"'; let q = '\'';
        fn x<'n>(o: &'n str) {}
        #[cfg(test)]
        mod tests { use p::q; fn r() { s() } }
        #[cfg(test)] use t::u;
        use v::w;
    "##;
    let code = code(text);
    for word in ["a::b", "fn x", "&'n str", "v::w"] {
        assert!(names(&code, word), "{word}: {code}");
    }
    for word in [
        "c::d", "e::f", "g::h", "i::j", "k::l", "p::q", "s()", "t::u",
    ] {
        assert!(!names(&code, word), "{word}: {code}");
    }
}

#[test]
fn a_name_is_found_as_a_whole() {
    assert!(names("x = ptx::emit", "ptx::"));
    assert!(!names("x = to_ptx::emit", "ptx::"));
    assert!(names("unsafe { }", "unsafe"));
    assert!(!names("forbid(unsafe_code)", "unsafe"));
}
