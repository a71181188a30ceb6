//! PTX text as words, marks and constants.

use super::error::{EmuError, Why};
use super::text::Operand;

/// A word is a name, directive, opcode or number; a string keeps its quotes.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Word(String),
    Mark(char),
}

/// The tokens of a text, each with its line.
pub fn tokens(text: &str) -> Result<Vec<(Token, u32)>, EmuError> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number as u32 + 1;
        let line = line.split("//").next().unwrap_or_default();
        let chars: Vec<char> = line.chars().collect();
        let in_word = |c: char| c.is_ascii_alphanumeric() || "_$%.".contains(c);
        let mut i = 0;
        while i < chars.len() {
            if chars[i].is_whitespace() {
                i += 1;
            } else if in_word(chars[i]) {
                let start = i;
                while i < chars.len() && (in_word(chars[i]) || chars[i..].starts_with(&[':', ':']))
                {
                    i += if chars[i] == ':' { 2 } else { 1 };
                }
                out.push((Token::Word(chars[start..i].iter().collect()), number));
            } else if chars[i] == '"' {
                let rest = &chars[i + 1..];
                let end = rest.iter().position(|c| *c == '"').unwrap_or(rest.len());
                let text = chars[i..(i + end + 2).min(chars.len())].iter().collect();
                out.push((Token::Word(text), number));
                i += end + 2;
            } else if ",;:[]{}()<>+-|!@".contains(chars[i]) {
                out.push((Token::Mark(chars[i]), number));
                i += 1;
            } else {
                let why = Why::Text(format!("unexpected character {:?}", chars[i]));
                return Err(EmuError::text(number, why));
            }
        }
    }
    Ok(out)
}

/// `0f` or `0d` and all digits of the bits.
pub fn float(word: &str) -> Option<Operand> {
    let (kind, digits) = word.split_at_checked(2)?;
    let bits = u64::from_str_radix(digits, 16).ok()?;
    match (kind, digits.len()) {
        ("0f", 8) => Some(Operand::Float(bits as u32)),
        ("0d", 16) => Some(Operand::Double(bits)),
        _ => None,
    }
}

/// A decimal or hexadecimal constant.
pub fn number(word: &str) -> Option<i64> {
    let digits = word.strip_suffix('U').unwrap_or(word);
    match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|n| n as i64),
        None if digits.starts_with('0') && digits.len() > 1 => None,
        None => digits.parse::<u64>().ok().map(|n| n as i64),
    }
}
