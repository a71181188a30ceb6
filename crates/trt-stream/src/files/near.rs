//! Names that look like one that is not there, for error messages.
//!
//! A name that is there under another prefix (`language_model.model.norm.weight` for
//! `model.norm.weight`) comes first, then what may be meant by a slip of the keyboard. Files may
//! hold millions of names of any length, so what is looked at is bounded.

use std::cmp::Reverse;

/// Names that are suggested.
const MOST: usize = 3;
/// The longest name that is compared letter by letter.
const LONGEST: usize = 256;
/// The most edits between names that are near.
const EDITS: usize = 12;
/// Steps of comparing letters in all, some tens of milliseconds: enough for the names of any real
/// model, and more than enough of a hostile one.
const STEPS: usize = 1 << 23;
/// Parts of a name that a foreign prefix may take away, or put in their place.
const PREFIX: usize = 3;

/// Up to three names: those with another prefix, the longest common end first, then those within a
/// third of the length in edits, nearest first.
pub(crate) fn names<'a>(wanted: &str, candidates: impl Iterator<Item = &'a String>) -> Vec<String> {
    let limit = (wanted.len() / 3).clamp(2, EDITS);
    let mut steps = STEPS;
    let mut scored = Vec::new();
    for candidate in candidates.filter(|c| c.len() <= LONGEST && wanted.len() <= LONGEST) {
        if let Some((tail, _, _)) = split(wanted, candidate) {
            scored.push((Reverse(tail.len()), 0, candidate.as_str()));
        } else if let Some(edits) = edits(wanted, candidate, limit, &mut steps) {
            scored.push((Reverse(0), edits, candidate.as_str()));
        }
        // Only the best few are kept, however many there are.
        if scored.len() == 64 {
            scored.sort_unstable();
            scored.truncate(MOST);
        }
    }
    scored.sort_unstable();
    scored.truncate(MOST);
    scored.into_iter().map(|(_, _, c)| c.to_string()).collect()
}

/// A near name, with what sets it apart if that is a prefix.
pub(crate) fn described(wanted: &str, near: &str) -> String {
    match split(wanted, near) {
        Some((_, "", there)) => format!("{near} (with the prefix '{there}')"),
        Some((_, asked, "")) => format!("{near} (without the prefix '{asked}')"),
        Some((_, asked, there)) => format!("{near} (with '{there}' in place of '{asked}')"),
        None => near.to_string(),
    }
}

/// The end that two names have in common, if it is whole parts of both, at least two of them or
/// all of one name, and what is before it in each.
fn split<'a>(wanted: &'a str, there: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let ends = wanted.bytes().rev().zip(there.bytes().rev());
    let common = ends.take_while(|(a, b)| a == b).count();
    let starts = |name: &str, at: usize| at == 0 || name.as_bytes().get(at - 1) == Some(&b'.');
    let (a, b) = (wanted.len(), there.len());
    // The longest common end that begins with a part in both.
    let tail = (1..=common)
        .rev()
        .find(|&n| starts(wanted, a - n) && starts(there, b - n))?;
    let (asked, tail) = wanted.split_at_checked(a - tail)?;
    let prefix = there.get(..b - tail.len())?;
    let parts = |text: &str| text.matches('.').count();
    let whole = asked.is_empty() || prefix.is_empty();
    let foreign = parts(asked) <= PREFIX && parts(prefix) <= PREFIX;
    // `layers.0.norm.weight` and `layers.1.norm.weight` are two weights, not two prefixes.
    let numbered = [asked, prefix]
        .iter()
        .any(|p| p.bytes().any(|b| b.is_ascii_digit()));
    let long = whole || parts(tail) >= 1;
    (wanted != there && long && foreign && !numbered).then_some((tail, asked, prefix))
}

/// Insertions, deletions and replacements from one name to the other, if they are at most `limit`
/// and `steps` are left to count them.
fn edits(a: &str, b: &str, limit: usize, steps: &mut usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let (a, b) = differing(a.as_bytes(), b.as_bytes());
    if a.len().max(b.len()) <= limit && a.len().min(b.len()) == 0 {
        return Some(a.len().max(b.len()));
    }
    *steps = steps.checked_sub((a.len() + 1) * (2 * limit + 1))?;
    // Row by row, and of each row only what is within the limit of the diagonal.
    let far = limit + 1;
    let mut row: Vec<usize> = (0..=b.len()).map(|j| j.min(far)).collect();
    for (i, x) in a.iter().enumerate() {
        let (from, to) = (i.saturating_sub(limit), (i + limit + 1).min(b.len()));
        let mut diagonal = row[from];
        row[from] = match from {
            0 => (i + 1).min(far),
            _ => far,
        };
        let mut least = row[from];
        for j in from..to {
            let replaced = diagonal + usize::from(*x != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1).min(far);
            least = least.min(row[j + 1]);
        }
        if to < b.len() {
            row[to + 1] = far;
        }
        if least > limit {
            return None;
        }
    }
    Some(row[b.len()]).filter(|edits| *edits <= limit)
}

/// What is left of two names without their common beginning and end.
fn differing<'a>(a: &'a [u8], b: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let same = |(x, y): &(&u8, &u8)| x == y;
    let start = a.iter().zip(b).take_while(same).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(same).count();
    (&a[..a.len() - end], &b[..b.len() - end])
}

#[cfg(test)]
mod tests;
