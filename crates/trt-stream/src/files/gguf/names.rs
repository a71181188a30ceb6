//! What the tensors of a GGUF model are called in Hugging Face's files, and what its converter made of them.
//!
//! A GGUF file names its tensors in a way of its own, the same for all architectures. The table says, for each
//! architecture that is known, which parts it has and what Hugging Face's files call them: a name is turned, nothing is
//! stored. Two things are not only names. The converter writes the rows of `q` and `k` of `llama` in the order of a rope
//! that turns neighbours, so a product with them gives its results in that order. And it adds 1 to the norms of `gemma`.
//! A tensor under its Hugging Face name means what Hugging Face's file holds, so [`View`] tells the difference; under its
//! GGUF name it means what lies in the file.

use super::super::WeightsError;
use super::super::tensor::TensorId;
use super::metadata::Metadata;

/// In what order the rows of a weight lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// As the name says.
    #[default]
    AsStored,
    /// The rows of each head, `2 * half` of them, lie as pairs: row `2 * i + s` of a head in the file is what the name
    /// says is its row `s * half + i`.
    Interleaved {
        /// Into how many heads of equal width all rows are cut.
        heads: usize,
    },
}

/// A tensor, and how what lies in the file differs from what the name that it was found by means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The tensor.
    pub id: TensorId,
    /// In what order its rows lie.
    pub rows: RowOrder,
    /// What was added to each value before it was written: 0 almost always.
    pub added: f32,
}

/// What the converter made of a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    /// Only another name.
    Renamed,
    /// Rows of query heads in pairs.
    QueryPairs,
    /// Rows of key heads in pairs.
    KeyPairs,
    /// 1 was added.
    PlusOne,
}
use Made::{KeyPairs, PlusOne, QueryPairs, Renamed};

/// A part of a model: its Hugging Face name, its GGUF name, what was made of it.
type Part = (&'static str, &'static str, Made);

/// An architecture that files name.
struct Architecture {
    /// Its names in `general.architecture`.
    names: &'static [&'static str],
    layer: &'static [&'static [Part]],
    norm: Made,
}

/// Parts of a layer that most have, in the order of use.
const BEFORE: &[Part] = &[("input_layernorm", "attn_norm", Renamed)];
const ATTENTION: &[Part] = &[
    ("self_attn.v_proj", "attn_v", Renamed),
    ("self_attn.o_proj", "attn_output", Renamed),
];
const MLP: &[Part] = &[
    ("post_attention_layernorm", "ffn_norm", Renamed),
    ("mlp.gate_proj", "ffn_gate", Renamed),
    ("mlp.up_proj", "ffn_up", Renamed),
    ("mlp.down_proj", "ffn_down", Renamed),
];
const IN_PAIRS: &[Part] = &[
    ("self_attn.q_proj", "attn_q", QueryPairs),
    ("self_attn.k_proj", "attn_k", KeyPairs),
];
const PLAIN: &[Part] = &[
    ("self_attn.q_proj", "attn_q", Renamed),
    ("self_attn.k_proj", "attn_k", Renamed),
];
const HEAD_NORMS: &[Part] = &[
    ("self_attn.q_norm", "attn_q_norm", Renamed),
    ("self_attn.k_norm", "attn_k_norm", Renamed),
];
const GEMMA: &[Part] = &[
    ("input_layernorm", "attn_norm", PlusOne),
    ("self_attn.q_proj", "attn_q", Renamed),
    ("self_attn.k_proj", "attn_k", Renamed),
    ("self_attn.v_proj", "attn_v", Renamed),
    ("self_attn.o_proj", "attn_output", Renamed),
    ("mlp.gate_proj", "ffn_gate", Renamed),
    ("mlp.up_proj", "ffn_up", Renamed),
    ("mlp.down_proj", "ffn_down", Renamed),
];
const GEMMA_1: &[Part] = &[("post_attention_layernorm", "ffn_norm", PlusOne)];
const GEMMA_2: &[Part] = &[
    ("post_attention_layernorm", "post_attention_norm", PlusOne),
    ("pre_feedforward_layernorm", "ffn_norm", PlusOne),
    ("post_feedforward_layernorm", "post_ffw_norm", PlusOne),
];
const GEMMA_HEAD_NORMS: &[Part] = &[
    ("self_attn.q_norm", "attn_q_norm", PlusOne),
    ("self_attn.k_norm", "attn_k_norm", PlusOne),
];
const PHI_3: &[Part] = &[
    ("input_layernorm", "attn_norm", Renamed),
    ("self_attn.qkv_proj", "attn_qkv", Renamed),
    ("self_attn.o_proj", "attn_output", Renamed),
    ("post_attention_layernorm", "ffn_norm", Renamed),
    ("mlp.gate_up_proj", "ffn_up", Renamed),
    ("mlp.down_proj", "ffn_down", Renamed),
];

const KNOWN: &[Architecture] = &[
    // Mistral's and SmolLM2's files say that they are `llama` too.
    Architecture {
        names: &["llama", "smollm3"],
        layer: &[BEFORE, IN_PAIRS, ATTENTION, MLP],
        norm: Renamed,
    },
    Architecture {
        names: &["qwen2"],
        layer: &[BEFORE, PLAIN, ATTENTION, MLP],
        norm: Renamed,
    },
    Architecture {
        names: &["qwen3"],
        layer: &[BEFORE, PLAIN, HEAD_NORMS, ATTENTION, MLP],
        norm: Renamed,
    },
    Architecture {
        names: &["gemma"],
        layer: &[GEMMA, GEMMA_1],
        norm: PlusOne,
    },
    Architecture {
        names: &["gemma2"],
        layer: &[GEMMA, GEMMA_2],
        norm: PlusOne,
    },
    Architecture {
        names: &["gemma3"],
        layer: &[GEMMA, GEMMA_2, GEMMA_HEAD_NORMS],
        norm: PlusOne,
    },
    Architecture {
        names: &["phi3"],
        layer: &[PHI_3],
        norm: Renamed,
    },
];

/// Where a tensor is used: in which layer, as which part.
pub(crate) type LayerPlace = (Layer, usize);

/// Where in a decoder something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Before,
    At(usize),
    After,
}

/// The names of one model.
#[derive(Clone)]
pub(crate) struct Names {
    architecture: &'static Architecture,
    query_heads: Option<usize>,
    key_heads: Option<usize>,
}

impl Names {
    /// Those of what a file says that it is; nothing for an architecture that is not known.
    pub fn of(metadata: &Metadata) -> Result<Option<Names>, WeightsError> {
        let Some(name) = metadata.text("general.architecture")? else {
            return Ok(None);
        };
        let known = KNOWN.iter().find(|a| a.names.contains(&name.as_str()));
        let Some(architecture) = known else {
            return Ok(None);
        };
        // A list, of a number for each layer, is none that the models here have.
        let heads = |key: &str| {
            let key = format!("{name}.attention.{key}");
            metadata.count(&key).ok().flatten().filter(|n| *n > 0)
        };
        let query_heads = heads("head_count");
        Ok(Some(Names {
            architecture,
            query_heads,
            key_heads: heads("head_count_kv").or(query_heads),
        }))
    }

    /// What Hugging Face calls the tensor of this name in the file, and where it comes in the order of use; nothing for
    /// a name that the architecture does not have.
    pub fn hugging_face(&self, stored: &str) -> Option<(LayerPlace, String)> {
        let (path, end) = stored.rsplit_once('.')?;
        if !matches!(end, "weight" | "bias") {
            return None;
        }
        let (layer, part, name) = match path {
            "token_embd" => (Layer::Before, 0, "model.embed_tokens".to_string()),
            "output_norm" => (Layer::After, 0, "model.norm".to_string()),
            "output" => (Layer::After, 1, "lm_head".to_string()),
            _ => {
                let (layer, part) = path.strip_prefix("blk.")?.split_once('.')?;
                let mut parts = self.architecture.layer.iter().copied().flatten();
                let place = parts.position(|(_, stored, _)| *stored == part)?;
                let mut parts = self.architecture.layer.iter().copied().flatten();
                let (name, ..) = parts.nth(place)?;
                let number = layer.parse().ok()?;
                (
                    Layer::At(number),
                    place,
                    format!("model.layers.{layer}.{name}"),
                )
            }
        };
        Some(((layer, part), format!("{name}.{end}")))
    }

    /// What tells these names from others, for a fingerprint.
    pub fn facts(&self) -> [usize; 3] {
        let known = KNOWN
            .iter()
            .position(|a| a.names == self.architecture.names);
        let number = |n: Option<usize>| n.map_or(0, |n| n + 1);
        [known, self.query_heads, self.key_heads].map(number)
    }

    /// What a tensor of this Hugging Face name is called in the file, in what order its rows lie, and what was added to
    /// it; nothing for a name that the architecture does not have.
    pub fn stored(&self, name: &str) -> Option<(String, RowOrder, f32)> {
        let (path, end) = name.rsplit_once('.')?;
        if !matches!(end, "weight" | "bias") {
            return None;
        }
        let (stored, made) = match path {
            "model.embed_tokens" => ("token_embd".to_string(), Renamed),
            "model.norm" => ("output_norm".to_string(), self.architecture.norm),
            "lm_head" => ("output".to_string(), Renamed),
            _ => {
                let (layer, part) = path.strip_prefix("model.layers.")?.split_once('.')?;
                let plain = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
                let parts = self.architecture.layer.iter().copied().flatten();
                let (_, stored, made) = parts.filter(|_| plain).find(|(hf, _, _)| *hf == part)?;
                (format!("blk.{layer}.{stored}"), *made)
            }
        };
        let pairs = |heads: Option<usize>| Some(RowOrder::Interleaved { heads: heads? });
        let (rows, added) = match made {
            Renamed => (RowOrder::AsStored, 0.0),
            PlusOne => (RowOrder::AsStored, 1.0),
            QueryPairs => (pairs(self.query_heads)?, 0.0),
            KeyPairs => (pairs(self.key_heads)?, 0.0),
        };
        Some((format!("{stored}.{end}"), rows, added))
    }
}
