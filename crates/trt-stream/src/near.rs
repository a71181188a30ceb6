//! Names that look like a misspelt one, for error messages.

/// Up to three names within a third of the length in edits, nearest first.
pub(crate) fn names<'a>(wanted: &str, candidates: impl Iterator<Item = &'a String>) -> Vec<String> {
    let limit = (wanted.len() / 3).max(2);
    let mut scored: Vec<(usize, &str)> = candidates
        .filter(|c| c.len().abs_diff(wanted.len()) <= limit)
        .map(|c| (edits(wanted.as_bytes(), c.as_bytes()), c.as_str()))
        .filter(|(edits, _)| *edits <= limit)
        .collect();
    scored.sort_unstable();
    scored.iter().take(3).map(|(_, c)| c.to_string()).collect()
}

/// Insertions, deletions and replacements from `a` to `b`.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let all: Vec<String> = ["model.norm.weight", "model.norm.bias", "lm_head.weight"]
            .map(String::from)
            .to_vec();
        assert_eq!(
            names("model.nrm.weight", all.iter()),
            ["model.norm.weight", "model.norm.bias"][..1].to_vec()
        );
        assert!(names("x", all.iter()).is_empty());
    }
}
