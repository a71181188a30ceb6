//! Where a checkpoint keeps the text model: names differ between plain models and those inside another.

use super::backend::{candle, candle_nn};
use super::config::DecoderConfig;
use candle::Result;
use candle_nn::{Embedding, Linear, VarBuilder, embedding, linear_no_bias};

/// The names of a decoder and of its output head.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub model: &'static str,
    pub head: &'static str,
}

/// As transformers saves plain models, and the text models of those with vision: before version 5, since, and Idefics'.
const NAMES: [Names; 4] = [
    Names {
        model: "model",
        head: "lm_head",
    },
    Names {
        model: "language_model.model",
        head: "language_model.lm_head",
    },
    Names {
        model: "model.language_model",
        head: "lm_head",
    },
    Names {
        model: "model.text_model",
        head: "lm_head",
    },
];

impl Names {
    /// The first names under which there is a decoder, by its first norm. Where there is none, those of a plain model,
    /// so that the error of what is missing says them.
    pub fn find(vb: &VarBuilder) -> Names {
        let norm = "layers.0.input_layernorm.weight";
        let there = |names: &Names| vb.pp(names.model).contains_tensor(norm);
        NAMES.into_iter().find(there).unwrap_or(NAMES[0])
    }
}

/// The embedding and the output head. Where the weights hold both, both are used, whatever the configuration says: so
/// does transformers if they differ, and if they are equal nothing else comes of it. Where they hold one, it serves as
/// both, unless the configuration says that they are not tied.
pub(super) fn ends(
    vb: &VarBuilder,
    names: Names,
    config: &DecoderConfig,
) -> Result<(Embedding, Linear)> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let (table, head) = (vb.pp(names.model).pp("embed_tokens"), vb.pp(names.head));
    let tied = config.tie_word_embeddings != Some(false);
    match (
        table.contains_tensor("weight"),
        head.contains_tensor("weight"),
    ) {
        (true, false) if tied => {
            let table = embedding(vocab, hidden, table)?;
            let head = Linear::new(table.embeddings().clone(), None);
            Ok((table, head))
        }
        (false, true) if tied => {
            let head = linear_no_bias(hidden, vocab, head)?;
            Ok((Embedding::new(head.weight().clone(), hidden), head))
        }
        (_, _) => Ok((
            embedding(vocab, hidden, table)?,
            linear_no_bias(hidden, vocab, head)?,
        )),
    }
}
