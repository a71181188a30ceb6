//! The same model as a GGUF file, its matrices in blocks.
//!
//! What a product costs does not depend on the numbers in its blocks, so those are random bits with scales that give values of the
//! deviation that models are initialised with; nothing is quantised. Which matrix is of which type follows llama.cpp's converter:
//! `q4_k_m` mixes two, and rows that are no multiple of 256 fall back to a type of 32.

use super::Sizes;
use anyhow::{Context, Result, bail};
use candle_trt::kernel::{BlockType, Encoding};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What tensors start at multiples of.
const ALIGN: usize = 4096;
/// Bytes that a thread makes at once, about.
const PIECE: usize = 16 << 20;

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// All of one type.
    One(BlockType),
    /// Q4_K, and Q6_K for the head and for half of the values' and MLPs' last matrices.
    Q4KM,
}

impl FromStr for Quant {
    type Err = String;

    fn from_str(s: &str) -> Result<Quant, String> {
        if s.eq_ignore_ascii_case("q4_k_m") {
            return Ok(Quant::Q4KM);
        }
        let known = BlockType::ALL
            .into_iter()
            .find(|b| b.name().eq_ignore_ascii_case(s));
        known.map(Quant::One).ok_or_else(|| {
            let names: Vec<&str> = BlockType::ALL.iter().map(|b| b.name()).collect();
            format!("not one of q4_k_m, {}", names.join(", "))
        })
    }
}

struct Tensor {
    name: String,
    /// Rows first.
    shape: Vec<usize>,
    encoding: Encoding,
    start: usize,
}

impl Tensor {
    fn bytes(&self) -> usize {
        let (columns, rows) = match self.shape[..] {
            [columns] => (columns, 1),
            [rows, columns] => (columns, rows),
            _ => (0, 0),
        };
        // The encoding was chosen to fit the columns.
        self.encoding.row_bytes(columns).unwrap_or(0) * rows
    }
}

/// Writes the file and gives the bytes of its weights.
pub fn write(path: &Path, sizes: &Sizes, quant: Quant, seed: u64) -> Result<usize> {
    let mut tensors = tensors(sizes, quant);
    let mut end = 0;
    for t in &mut tensors {
        t.start = end;
        end = (end + t.bytes()).next_multiple_of(ALIGN);
    }
    let mut header = header(sizes, &tensors);
    header.resize(header.len().next_multiple_of(ALIGN), 0);
    let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len((header.len() + end) as u64)?;
    file.write_all_at(&header, 0)?;
    fill(&file, header.len(), &tensors, seed)?;
    file.sync_all()?;
    Ok(tensors.iter().map(Tensor::bytes).sum())
}

/// The tensors in the order in which a model uses them.
fn tensors(s: &Sizes, quant: Quant) -> Vec<Tensor> {
    let kv = s.hidden / s.heads * s.kv_heads;
    let few = match quant {
        Quant::One(block) => block,
        Quant::Q4KM => BlockType::Q4K,
    };
    let more = |wanted: bool| match (quant, wanted) {
        (Quant::Q4KM, true) => BlockType::Q6K,
        _ => few,
    };
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], block: Option<BlockType>| {
        let encoding = block.map_or(candle_trt::kernel::DType::F32.into(), |b| fitting(b, shape));
        all.push(Tensor {
            name,
            shape: shape.to_vec(),
            encoding,
            start: 0,
        });
    };
    add("token_embd.weight".into(), &[s.vocab, s.hidden], Some(few));
    for layer in 0..s.layers {
        let many = more_bits(layer, s.layers);
        let parts: [(&str, &[usize], Option<BlockType>); 9] = [
            ("attn_norm", &[s.hidden], None),
            ("attn_q", &[s.hidden, s.hidden], Some(few)),
            ("attn_k", &[kv, s.hidden], Some(few)),
            ("attn_v", &[kv, s.hidden], Some(more(many))),
            ("attn_output", &[s.hidden, s.hidden], Some(few)),
            ("ffn_norm", &[s.hidden], None),
            ("ffn_gate", &[s.ffn, s.hidden], Some(few)),
            ("ffn_up", &[s.ffn, s.hidden], Some(few)),
            ("ffn_down", &[s.hidden, s.ffn], Some(more(many))),
        ];
        for (part, shape, block) in parts {
            add(format!("blk.{layer}.{part}.weight"), shape, block);
        }
    }
    add("output_norm.weight".into(), &[s.hidden], None);
    add(
        "output.weight".into(),
        &[s.vocab, s.hidden],
        Some(more(true)),
    );
    all
}

/// Layers whose values and last matrices have more bits in a mix.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type, or one that rows of these columns are whole blocks of.
fn fitting(block: BlockType, shape: &[usize]) -> Encoding {
    let columns = shape.last().copied().unwrap_or(0);
    let small = match block {
        BlockType::Q2K | BlockType::Q3K | BlockType::Iq4Xs => BlockType::Iq4Nl,
        BlockType::Q4K => BlockType::Q5_0,
        BlockType::Q5K => BlockType::Q5_1,
        BlockType::Q6K => BlockType::Q8_0,
        other => other,
    };
    let fits = |b: &BlockType| columns.is_multiple_of(b.values());
    match [block, small].into_iter().find(fits) {
        Some(block) => Encoding::Blocks(block),
        None => Encoding::Plain(candle_trt::kernel::DType::F16),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn header(s: &Sizes, tensors: &[Tensor]) -> Vec<u8> {
    let number =
        |key: &str, value: usize| (key.to_string(), 4u32, (value as u32).to_le_bytes().to_vec());
    let float = |key: &str, value: f32| (key.to_string(), 6u32, value.to_le_bytes().to_vec());
    let mut architecture = Vec::new();
    text(&mut architecture, "llama");
    let values = [
        ("general.architecture".to_string(), 8, architecture),
        number("general.alignment", ALIGN),
        number("llama.context_length", 8192),
        number("llama.embedding_length", s.hidden),
        number("llama.block_count", s.layers),
        number("llama.feed_forward_length", s.ffn),
        number("llama.attention.head_count", s.heads),
        number("llama.attention.head_count_kv", s.kv_heads),
        number("llama.rope.dimension_count", s.hidden / s.heads),
        number("llama.vocab_size", s.vocab),
        float("llama.attention.layer_norm_rms_epsilon", 1e-5),
        float("llama.rope.freq_base", 500_000.0),
        number("tokenizer.ggml.bos_token_id", 1),
        number("tokenizer.ggml.eos_token_id", 2),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    for (key, kind, bytes) in values {
        text(&mut out, &key);
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    }
    for t in tensors {
        text(&mut out, &t.name);
        out.extend((t.shape.len() as u32).to_le_bytes());
        t.shape
            .iter()
            .rev()
            .for_each(|d| out.extend((*d as u64).to_le_bytes()));
        out.extend(number_of(t.encoding).to_le_bytes());
        out.extend((t.start as u64).to_le_bytes());
    }
    out
}

/// What the format calls an encoding.
fn number_of(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::Plain(candle_trt::kernel::DType::F32) => 0,
        Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => 1,
        Encoding::Blocks(block) => match block {
            BlockType::Q4_0 => 2,
            BlockType::Q4_1 => 3,
            BlockType::Q5_0 => 6,
            BlockType::Q5_1 => 7,
            BlockType::Q8_0 => 8,
            BlockType::Q2K => 10,
            BlockType::Q3K => 11,
            BlockType::Q4K => 12,
            BlockType::Q5K => 13,
            BlockType::Q6K => 14,
            BlockType::Iq4Nl => 20,
            BlockType::Iq4Xs => 23,
            BlockType::Mxfp4 => 39,
        },
    }
}

/// Writes all tensors, in pieces on all processors.
fn fill(file: &File, data: usize, tensors: &[Tensor], seed: u64) -> Result<()> {
    let pieces = |t: &Tensor| {
        let unit = t.encoding.bytes();
        let each = PIECE / unit * unit;
        (0..t.bytes()).step_by(each).map(move |at| (at, each))
    };
    let work: Vec<(usize, usize, usize)> = tensors
        .iter()
        .enumerate()
        .flat_map(|(i, t)| pieces(t).map(move |(at, each)| (i, at, each)))
        .collect();
    let next = AtomicUsize::new(0);
    let run = || -> Result<()> {
        let mut bytes = Vec::with_capacity(PIECE);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((tensor, at, each)) = work.get(number) else {
                return Ok(());
            };
            let t = &tensors[*tensor];
            bytes.resize((t.bytes() - at).min(*each), 0);
            random(
                &mut bytes,
                t.encoding,
                seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            );
            file.write_all_at(&bytes, (data + t.start + at) as u64)?;
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for one in all {
            match one.join() {
                Ok(result) => result?,
                Err(_) => bail!("a writing thread panicked"),
            }
        }
        Ok(())
    })
}

/// Random values of about the deviation of 0.02; plain ones are 1, as norms are.
fn random(bytes: &mut [u8], encoding: Encoding, mut seed: u64) {
    let block = match encoding {
        Encoding::Blocks(block) => block,
        Encoding::Plain(candle_trt::kernel::DType::F32) => {
            let one = 1f32.to_le_bytes();
            return bytes
                .chunks_exact_mut(4)
                .for_each(|b| b.copy_from_slice(&one));
        }
        Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => {
            let small = half::f16::from_f32(0.02).to_le_bytes();
            return bytes
                .chunks_exact_mut(2)
                .for_each(|b| b.copy_from_slice(&small));
        }
    };
    for word in bytes.chunks_mut(8) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        word.copy_from_slice(&seed.to_le_bytes()[..word.len()]);
    }
    for bytes in bytes.chunks_exact_mut(block.bytes()) {
        match scales(block) {
            Scales::Halves(all) => {
                for (at, value) in all {
                    let value = half::f16::from_f32(*value).to_le_bytes();
                    bytes[*at..at + 2].copy_from_slice(&value);
                }
            }
            // Two to the power of -7.
            Scales::Exponent => bytes[0] = 120,
        }
    }
}

/// The numbers of a block that scale all of it.
enum Scales {
    /// f16 at these places.
    Halves(&'static [(usize, f32)]),
    /// One byte.
    Exponent,
}

fn scales(block: BlockType) -> Scales {
    Scales::Halves(match block {
        BlockType::Q4_0 => &[(0, 0.0043)],
        BlockType::Q4_1 => &[(0, 0.0043), (2, -0.0325)],
        BlockType::Q5_0 => &[(0, 0.0022)],
        BlockType::Q5_1 => &[(0, 0.0022), (2, -0.0335)],
        BlockType::Q8_0 => &[(0, 0.00027)],
        BlockType::Q2K => &[(80, 0.002), (82, 0.003)],
        BlockType::Q3K => &[(108, 0.0005)],
        BlockType::Q4K => &[(0, 0.00008), (2, 0.0006)],
        BlockType::Q5K => &[(0, 0.00004), (2, 0.0006)],
        BlockType::Q6K => &[(208, 0.000_015)],
        BlockType::Iq4Nl => &[(0, 0.00028)],
        BlockType::Iq4Xs => &[(0, 0.000_015)],
        BlockType::Mxfp4 => return Scales::Exponent,
    })
}
