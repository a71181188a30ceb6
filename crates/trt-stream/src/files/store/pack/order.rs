//! In which order weights are used, as far as their names tell: parts by their numbers, others by their letters.
//!
//! So the tenth layer comes behind the ninth, and what a pass reads lies together and one after another. Within a layer it is the
//! order of the alphabet.

/// A name as something to sort by.
pub(super) fn key(name: &str) -> Vec<(u64, String)> {
    let part = |part: &str| match part.parse::<u64>() {
        Ok(number) => (number, String::new()),
        Err(_) => (0, part.to_string()),
    };
    name.split('.').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_the_order_of_their_numbers() {
        let mut names = ["h.10.a", "h.9.b", "wte", "h.9.a", "h.10.b.0"];
        names.sort_by_cached_key(|name| key(name));
        assert_eq!(names, ["h.9.a", "h.9.b", "h.10.a", "h.10.b.0", "wte"]);
    }
}
