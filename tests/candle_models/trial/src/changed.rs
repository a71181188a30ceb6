//! Files that need other lines than `use` lines: those of their code which bring values to the CPU to decide by them.
//!
//! A change names the first line that goes and the line before which it ends, whole lines of candle's text as they are, and
//! says what comes in between. A text that lacks them is another than the change was written for, which is an error.
//! Changed files lie beside the unchanged ones, with the other files of their folder.

use crate::port::{self, List};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

/// What is changed in a file.
struct Change {
    file: &'static str,
    /// The first line that goes; the only one of its text.
    first: &'static str,
    /// The first line behind it that stays.
    until: &'static str,
    /// What comes instead.
    lines: &'static str,
}

const BY_WEIGHTS: &str =
    "        let routing_weights = routing_weights.to_dtype(DType::F32)?.to_vec2::<f32>()?;";

const SHARES: &str = "        let routing_weights = match self.norm_topk_prob {
            true => routing_weights.broadcast_div(&routing_weights.sum_keepdim(D::Minus1)?)?,
            false => routing_weights,
        };
        let expert = |e: usize, xs: &Tensor| self.experts[e].forward(xs);
        let ys = candle_nn::moe::routed(&xs, &experts_per_tok, &routing_weights, self.experts.len(), expert)?;
";

const CHANGES: &[Change] = &[
    Change {
        file: "models/mixtral",
        first: BY_WEIGHTS,
        until: "        let ys = ys.reshape((b_size, seq_len, hidden_dim))?;",
        lines: "        let order = routing_weights.arg_sort_last_dim(false)?;
        let ids = order.narrow(D::Minus1, 0, self.num_experts_per_tok)?.contiguous()?;
        let shares = routing_weights.gather(&ids, D::Minus1)?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        let expert = |e: usize, xs: &Tensor| self.experts[e].forward(xs);
        let ys = candle_nn::moe::routed(&xs, &ids, &shares, self.experts.len(), expert)?;
",
    },
    Change {
        file: "models/qwen2_moe",
        first: BY_WEIGHTS,
        until: "        let shared_expert_output = xs.apply(&self.shared_expert)?;",
        lines: SHARES,
    },
    Change {
        file: "models/qwen3_moe",
        first: BY_WEIGHTS,
        until: "        ys.reshape((b_size, seq_len, hidden_dim))",
        lines: SHARES,
    },
    Change {
        file: "models/deepseek2",
        first: "        let mut y = xs.zeros_like()?;",
        until: "        Ok(y)",
        lines: "        let expert = |e: usize, xs: &Tensor| self.experts[e].forward(xs);
        let y = candle_nn::moe::routed(xs, topk_ids, topk_weight, self.experts.len(), expert)?;
",
    },
    Change {
        file: "models/clip/text_model",
        first: "        let mut indices = Vec::new();",
        until: "    }",
        lines: "        let (batch, _, width) = output.dims3()?;
        let places = sequence_max_indices.reshape((batch, 1, 1))?.broadcast_as((batch, 1, width))?;
        output.gather(&places.contiguous()?, 1)?.squeeze(1)
",
    },
];

/// How many lines come into a file, or into the files of the folder that it is the module of; none if it is as candle
/// has it.
pub fn lines(file: &str) -> Option<usize> {
    let folder = file.strip_suffix("/mod");
    let of = |c: &&Change| {
        let below = folder.and_then(|f| c.file.strip_prefix(f)?.strip_prefix('/'));
        c.file == file || below.is_some()
    };
    let all = CHANGES.iter().filter(of).map(|c| c.lines.lines().count());
    all.reduce(|a, b| a + b)
}

/// Writes the changed files below a folder, as far as they are on a list, and gives the file that declares them.
///
/// # Errors
///
/// If a file cannot be read or written, or a change does not fit its text.
pub fn write(sources: &Path, out: &Path, list: &List) -> Result<PathBuf> {
    let beside = |file: &str| match file.rsplit_once('/') {
        Some(("models", _)) | None => file.to_string(),
        Some((folder, _)) => format!("{folder}/"),
    };
    let with = |c: &Change| {
        let of = beside(c.file);
        let there = move |f: &&String| match of.ends_with('/') {
            true => f.starts_with(&of),
            false => **f == of,
        };
        list.iter().filter(there).cloned().collect::<Vec<_>>()
    };
    let files: List = CHANGES
        .iter()
        .filter(|c| list.contains(c.file))
        .flat_map(with)
        .collect();
    port::write_as(sources, out, &files, &text)
}

/// The text of a file with its changes.
fn text(file: &str, text: String) -> Result<String> {
    let changes = CHANGES.iter().filter(|c| c.file == file);
    // The unchanged file is in the same crate, and exports what it exports.
    let text = Ok(text.replace("#[macro_export]\n", ""));
    changes.fold(text, |text, change| changed(&text?, change))
}

fn changed(text: &str, change: &Change) -> Result<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut firsts = lines
        .iter()
        .enumerate()
        .filter(|(_, l)| **l == change.first);
    let (Some((first, _)), None) = (firsts.next(), firsts.next()) else {
        return Err(misfit(change, change.first));
    };
    let until = lines[first..].iter().position(|l| *l == change.until);
    let until = first + until.ok_or_else(|| misfit(change, change.until))?;
    let whole = |lines: &[&str]| lines.iter().fold(String::new(), |text, l| text + l + "\n");
    Ok(whole(&lines[..first]) + change.lines + &whole(&lines[until..]))
}

fn misfit(change: &Change, line: &str) -> Error {
    let file = change.file;
    Error::other(format!(
        "the change of {file} is for another text: {line:?} is not once in it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: Change = Change {
        file: "models/x",
        first: "b",
        until: "d",
        lines: "new\n",
    };

    #[test]
    fn lines_are_replaced_where_they_are_found() {
        let text = changed("a\nb\nc\nd\ne\n", &CHANGE).expect("it fits");
        assert_eq!(text, "a\nnew\nd\ne\n");
    }

    #[test]
    fn a_change_of_another_text_is_an_error() {
        for text in ["a\nc\nd\n", "b\nc\n", "b\nb\nd\n", "d\nb\n"] {
            let said = changed(text, &CHANGE).expect_err(text).to_string();
            assert!(
                said.contains("models/x") && said.contains("another text"),
                "{said}"
            );
        }
    }

    #[test]
    fn lines_of_a_folder_are_those_of_its_files() {
        assert_eq!(lines("models/clip/text_model"), lines("models/clip/mod"));
        assert_eq!(lines("models/clip/vision_model"), None);
        assert_eq!(lines("models/deepseek2"), Some(2));
    }
}
