//! Large random checkpoints, written as they are drawn: neither a tensor nor a file is ever held in
//! memory, so a checkpoint may be larger than what the process is allowed.

use super::tiny::shapes;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Result, Write};
use std::path::Path;
use trt_models::DecoderConfig;

/// Bytes of one write. Large ones give large pieces of page cache, which map twice as fast.
const WRITE: usize = 8 << 20;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value.
    Bf16,
}

/// A model too large to be made in memory.
#[derive(Clone, Debug)]
pub struct Random {
    /// For messages.
    pub name: &'static str,
    /// The `config.json`.
    pub json: Value,
    /// How its weights are stored.
    pub stored: Stored,
    /// In how many files.
    pub shards: usize,
}

/// The shape of SmolLM2-135M in f32: 538 MB with a tied head, a fifth of it the table.
pub fn smol() -> Random {
    Random {
        name: "538 MB",
        json: llama(576, 1536, 30, (9, 3), 49152, true),
        stored: Stored::F32,
        shards: 1,
    }
}

/// A wider model in bf16, 2.2 GB in three shards; its table is only gathered, its head is not tied.
pub fn wide() -> Random {
    Random {
        name: "2 GB",
        json: llama(2048, 8192, 16, (32, 8), 32000, false),
        stored: Stored::Bf16,
        shards: 3,
    }
}

/// A `config.json` of these sizes; heads are those of queries and of keys.
pub fn llama(
    hidden: usize,
    inner: usize,
    layers: usize,
    (heads, kv): (usize, usize),
    vocab: usize,
    tied: bool,
) -> Value {
    json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "tie_word_embeddings": tied, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    })
}

impl Random {
    /// The checked configuration.
    pub fn config(&self) -> DecoderConfig {
        DecoderConfig::from_json(&self.json.to_string()).expect("a valid config")
    }

    /// Writes `config.json` and the shards, with an index if there are several. Returns the bytes
    /// of all weights.
    pub fn write(&self, dir: &Path) -> Result<u64> {
        std::fs::write(dir.join("config.json"), self.json.to_string())?;
        let all = shapes(&self.config());
        let size = |shape: &[usize]| shape.iter().product::<usize>() * self.stored.size();
        let total: usize = all.iter().map(|(_, shape)| size(shape)).sum();
        let mut files: Vec<Vec<(&str, &[usize])>> = vec![Vec::new(); self.shards];
        let mut before = 0;
        for (name, shape) in &all {
            files[before * self.shards / total].push((name, shape));
            before += size(shape);
        }
        let mut weight_map = serde_json::Map::new();
        for (i, tensors) in files.iter().enumerate() {
            let file = match self.shards {
                1 => "model.safetensors".to_string(),
                n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
            };
            self.write_shard(&dir.join(&file), tensors)?;
            let entries = tensors.iter().map(|t| (t.0.into(), file.clone().into()));
            weight_map.extend(entries);
        }
        if self.shards > 1 {
            let index = json!({"metadata": {}, "weight_map": weight_map});
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string())?;
        }
        Ok(total as u64)
    }

    fn write_shard(&self, path: &Path, tensors: &[(&str, &[usize])]) -> Result<()> {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += shape.iter().product::<usize>() * self.stored.size();
            let entry = json!({
                "dtype": self.stored.name(), "shape": shape, "data_offsets": [start, end],
            });
            header.insert((*name).into(), entry);
        }
        let mut header = Value::from(header).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut out = File::create(path)?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut buffer = Vec::with_capacity(WRITE + 8);
        for (name, shape) in tensors {
            let mut draw = Draw::new(name);
            let spread = match shape {
                _ if name.contains("embed_tokens") => Some(1.0),
                [_, inputs] => Some(1.7 / (*inputs as f32).sqrt()),
                _ => None,
            };
            for i in 0..shape.iter().product::<usize>() {
                let value = spread.map_or(1.0, |s| s * draw.unit());
                match self.stored {
                    Stored::F32 => buffer.extend_from_slice(&value.to_le_bytes()),
                    // Rounded towards zero, which is as random.
                    Stored::Bf16 => buffer.extend_from_slice(&value.to_le_bytes()[2..]),
                }
                if i % 4096 == 0 && buffer.len() >= WRITE {
                    out.write_all(&buffer)?;
                    buffer.clear();
                }
            }
        }
        out.write_all(&buffer)
    }
}

impl Stored {
    fn size(self) -> usize {
        match self {
            Stored::F32 => 4,
            Stored::Bf16 => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Stored::F32 => "F32",
            Stored::Bf16 => "BF16",
        }
    }
}

/// Numbers that depend on the tensor's name only: one multiplication each, which is random enough.
struct Draw(u64);

impl Draw {
    fn new(name: &str) -> Draw {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Draw(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// From -1 to 1.
    #[inline(always)]
    fn unit(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 32) as i32 as f32 / 2_147_483_648.0
    }
}
