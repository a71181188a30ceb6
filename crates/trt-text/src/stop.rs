//! Stop strings: text that ends an answer and is not part of it.
//!
//! Text is given out as soon as no stop string can begin in it. What may be the beginning of one is held back, so a stop
//! string is never shown, however it is cut into pieces.

use crate::Error;

/// Watches a text for stop strings.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// A watch for any of `stops`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyStop`] where one of them is empty.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Error> {
        let stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        match stops.iter().any(String::is_empty) {
            true => Err(Error::EmptyStop),
            false => Ok(StopStrings {
                stops,
                held: String::new(),
            }),
        }
    }

    /// What can be shown once `piece` has come, and the stop string that ended the text, if one did: the one that begins
    /// first, and of those the longest.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held += piece;
        let found = self.stops.iter().filter_map(|stop| {
            let at = self.held.find(stop.as_str())?;
            Some((at, std::cmp::Reverse(stop.len()), stop))
        });
        if let Some((at, _, stop)) = found.min() {
            let stop = stop.clone();
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let rest = self.held.split_off(self.safe());
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What was held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// How many bytes no stop string can begin in.
    fn safe(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = self.held.len().saturating_sub(longest);
        let begins = |at: &usize| {
            self.held.is_char_boundary(*at)
                && self.stops.iter().any(|s| s.starts_with(&self.held[*at..]))
        };
        (first..self.held.len())
            .find(begins)
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stop_string_that_spans_pieces_is_never_shown() {
        let mut stop = StopStrings::new(["\nUser:"]).unwrap();
        assert_eq!(stop.push("Hi\nU"), ("Hi".into(), None));
        assert_eq!(stop.push("se"), (String::new(), None));
        assert_eq!(stop.push("less\nUser"), ("\nUseless".into(), None));
        assert_eq!(stop.push(": x"), (String::new(), Some("\nUser:".into())));
        assert_eq!(stop.finish(), "");
    }

    #[test]
    fn what_looked_like_one_is_shown_at_the_end() {
        let mut stop = StopStrings::new(["END", "é!"]).unwrap();
        assert_eq!(stop.push("the EN"), ("the ".into(), None));
        assert_eq!(stop.finish(), "EN");
        assert_eq!(stop.push("caf\u{e9}"), ("caf".into(), None));
        assert_eq!(stop.finish(), "\u{e9}");
    }

    #[test]
    fn an_empty_one_is_refused() {
        assert!(matches!(StopStrings::new(["a", ""]), Err(Error::EmptyStop)));
    }

    proptest! {
        /// However a text is cut, what is shown is the text up to the first stop string.
        #[test]
        fn cuts_change_nothing(
            pieces in prop::collection::vec("[ab\u{e9}]{0,3}", 0..12),
            stops in prop::collection::vec("[ab\u{e9}]{1,4}", 1..4),
        ) {
            let whole: String = pieces.concat();
            let first = stops.iter().filter_map(|s| whole.find(s.as_str())).min();
            let mut stop = StopStrings::new(stops).unwrap();
            let mut shown = String::new();
            let mut ended = false;
            for piece in &pieces {
                let (text, by) = stop.push(piece);
                shown += &text;
                if by.is_some() {
                    ended = true;
                    break;
                }
            }
            if !ended {
                shown += &stop.finish();
            }
            // A stop string that begins later may be whole earlier: then the text ends before it.
            let until = first.map_or(whole.len(), |at| at);
            prop_assert_eq!(ended, first.is_some());
            prop_assert!(whole.starts_with(&shown));
            prop_assert!(shown.len() >= until);
        }
    }
}
