//! What a file says, as part of a message: of bounded length, and without what a terminal obeys.

use std::fmt;

/// The most letters of a text that are shown.
const LETTERS: usize = 200;
/// The most sizes of a shape that are shown.
const SIZES: usize = 16;

/// A text, such as a tensor's name.
pub(crate) struct Shown<'a>(pub &'a str);

/// A shape.
pub(crate) struct Dims<'a>(pub &'a [usize]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut letters = self.0.chars();
        for letter in letters.by_ref().take(LETTERS) {
            // Some of the invisible ones turn the direction of what follows.
            let hidden = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            match letter.is_control() || hidden {
                true => write!(f, "{}", letter.escape_unicode())?,
                false => write!(f, "{letter}")?,
            }
        }
        match letters.as_str().len() {
            0 => Ok(()),
            more => write!(f, "… ({more} bytes more)"),
        }
    }
}

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..SIZES) {
            Some(first) if self.0.len() > SIZES => {
                write!(f, "{first:?} and {} sizes more", self.0.len() - SIZES)
            }
            _ => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_but_for_what_a_terminal_obeys_and_for_their_length() {
        for plain in ["", "model.layers.0.größe", "a b'c"] {
            assert_eq!(Shown(plain).to_string(), plain);
        }
        let hostile = "a\u{1b}[2Jb\n\u{202e}c";
        assert_eq!(Shown(hostile).to_string(), r"a\u{1b}[2Jb\u{a}\u{202e}c");
        let long = Shown(&"x".repeat(1_000_000)).to_string();
        assert!(
            long.len() < 300 && long.ends_with("(999800 bytes more)"),
            "{long}"
        );
        assert_eq!(Dims(&[2, 3]).to_string(), "[2, 3]");
        assert!(Dims(&[1; 1000]).to_string().ends_with("984 sizes more"));
    }
}
