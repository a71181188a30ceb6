//! Writes a Llama-family checkpoint of any size with random weights, as sharded safetensors or as a GGUF file.
//!
//! What a budget costs in time depends on sizes alone, so a checkpoint for measuring need not be
//! downloaded: `--preset llama-8b` has the sizes of Llama 3 8B. What packing without loss saves does depend
//! on the numbers, so rows are normal, each with a deviation of its own, as those of trained models are about. Norms are 1, and the
//! same seed gives the same bytes. Threads write shards side by side; nothing is held in memory but one block each.

mod blocks;
mod normal;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Write a checkpoint with random weights.
#[derive(Debug, Parser)]
struct Args {
    /// The folder to make, or with `--quant` the file; it must not exist.
    out: PathBuf,
    /// Sizes to start from; options change single ones.
    #[arg(long, value_enum, default_value = "llama-8b")]
    preset: Preset,
    /// What the weights are stored as.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// Write a GGUF file with matrices in blocks: q4_k_m, or a type such as q8_0.
    #[arg(long, value_name = "TYPE", conflicts_with_all = ["dtype", "shard_mib"])]
    quant: Option<blocks::Quant>,
    /// Width of the residual stream.
    #[arg(long)]
    hidden: Option<usize>,
    /// Width inside the MLP.
    #[arg(long)]
    ffn: Option<usize>,
    /// Decoder layers.
    #[arg(long)]
    layers: Option<usize>,
    /// Query heads.
    #[arg(long)]
    heads: Option<usize>,
    /// Key and value heads.
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Rows of the embedding table and of the head.
    #[arg(long)]
    vocab: Option<usize>,
    /// Largest shard in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    shard_mib: u64,
    /// Changes every number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// hidden 4096, ffn 14336, 32 layers, 32/8 heads, vocab 128256: 16.1 GB in bf16.
    #[value(name = "llama-8b")]
    Llama8b,
    /// hidden 2048, ffn 8192, 16 layers, 32/8 heads, vocab 128256: 3 GB in bf16.
    #[value(name = "llama-1b")]
    Llama1b,
    /// hidden 576, ffn 1536, 30 layers, 9/3 heads, vocab 49152: 0.3 GB in bf16.
    #[value(name = "smollm2-135m")]
    SmolLm2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    Bf16,
    F16,
    F32,
}

#[derive(Debug, Clone)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
}

struct Shard {
    file: String,
    tensors: Vec<Tensor>,
}

impl Dtype {
    fn bytes(self) -> usize {
        match self {
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
        }
    }

    fn torch(self) -> &'static str {
        match self {
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
            Dtype::F32 => "float32",
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let sizes = sizes(&args)?;
    if args.out.exists() {
        bail!("{} exists already", args.out.display());
    }
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    if let Some(quant) = args.quant {
        let bytes = blocks::write(&args.out, &sizes, quant, args.seed)?;
        println!(
            "{}: {:.2} GB of weights",
            args.out.display(),
            bytes as f64 / 1e9
        );
        return Ok(());
    }
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(parent)?;
    let shards = shards(&sizes, args.dtype, args.shard_mib << 20);
    write_all(unfinished.path(), &shards, &args)?;
    write_index(unfinished.path(), &shards)?;
    write_config(unfinished.path(), &sizes, args.dtype)?;
    std::fs::rename(unfinished.path(), &args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    drop(unfinished.keep());
    let bytes: usize = shards
        .iter()
        .flat_map(|s| &s.tensors)
        .map(|t| t.shape.iter().product::<usize>() * args.dtype.bytes())
        .sum();
    println!(
        "{}: {} shards, {:.2} GB of weights",
        args.out.display(),
        shards.len(),
        bytes as f64 / 1e9
    );
    Ok(())
}

fn sizes(args: &Args) -> Result<Sizes> {
    let [hidden, ffn, layers, heads, kv_heads, vocab] = match args.preset {
        Preset::Llama8b => [4096, 14336, 32, 32, 8, 128_256],
        Preset::Llama1b => [2048, 8192, 16, 32, 8, 128_256],
        Preset::SmolLm2 => [576, 1536, 30, 9, 3, 49_152],
    };
    let sizes = Sizes {
        hidden: args.hidden.unwrap_or(hidden),
        ffn: args.ffn.unwrap_or(ffn),
        layers: args.layers.unwrap_or(layers),
        heads: args.heads.unwrap_or(heads),
        kv_heads: args.kv_heads.unwrap_or(kv_heads),
        vocab: args.vocab.unwrap_or(vocab),
    };
    let s = &sizes;
    if [s.hidden, s.ffn, s.layers, s.heads, s.kv_heads, s.vocab].contains(&0) {
        bail!("every size must be above 0: {s:?}");
    }
    if !s.hidden.is_multiple_of(s.heads)
        || !(s.hidden / s.heads).is_multiple_of(2)
        || !s.heads.is_multiple_of(s.kv_heads)
    {
        bail!(
            "hidden {} must be an even multiple of {} heads, and heads a multiple of {} key heads",
            s.hidden,
            s.heads,
            s.kv_heads
        );
    }
    Ok(sizes)
}

/// All tensors in the order in which a model uses them, cut into shards.
fn shards(s: &Sizes, dtype: Dtype, most: u64) -> Vec<Shard> {
    let kv = s.hidden / s.heads * s.kv_heads;
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("model.embed_tokens.weight".into(), vec![s.vocab, s.hidden])];
    for layer in 0..s.layers {
        let parts: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![s.hidden]),
            ("self_attn.q_proj", vec![s.hidden, s.hidden]),
            ("self_attn.k_proj", vec![kv, s.hidden]),
            ("self_attn.v_proj", vec![kv, s.hidden]),
            ("self_attn.o_proj", vec![s.hidden, s.hidden]),
            ("post_attention_layernorm", vec![s.hidden]),
            ("mlp.gate_proj", vec![s.ffn, s.hidden]),
            ("mlp.up_proj", vec![s.ffn, s.hidden]),
            ("mlp.down_proj", vec![s.hidden, s.ffn]),
        ];
        let named = parts.into_iter().map(|(part, shape)| {
            let name = format!("model.layers.{layer}.{part}.weight");
            (name, shape)
        });
        tensors.extend(named);
    }
    tensors.push(("model.norm.weight".into(), vec![s.hidden]));
    tensors.push(("lm_head.weight".into(), vec![s.vocab, s.hidden]));
    let mut groups: Vec<Vec<Tensor>> = vec![Vec::new()];
    let mut held = 0;
    for (name, shape) in tensors {
        let bytes = (shape.iter().product::<usize>() * dtype.bytes()) as u64;
        if held > 0 && held + bytes > most {
            groups.push(Vec::new());
            held = 0;
        }
        held += bytes;
        let last = groups.len() - 1;
        groups[last].push(Tensor { name, shape });
    }
    let count = groups.len();
    let file = |i: usize| format!("model-{:05}-of-{count:05}.safetensors", i + 1);
    let numbered = groups.into_iter().enumerate();
    numbered
        .map(|(i, tensors)| Shard {
            file: file(i),
            tensors,
        })
        .collect()
}

fn write_all(dir: &Path, shards: &[Shard], args: &Args) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let next = Mutex::new(shards.iter().enumerate());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let taken = next.lock().ok().and_then(|mut n| n.next());
                let Some((i, shard)) = taken else {
                    return Ok(());
                };
                let seed = args.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (i as u64) << 40;
                let mut rows = normal::Rows::new(seed);
                write_shard(&dir.join(&shard.file), shard, args.dtype, &mut rows)
                    .with_context(|| format!("writing {}", shard.file))?;
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a writing thread panicked"),
            }
        }
        Ok(())
    })
}

fn write_shard(path: &Path, shard: &Shard, dtype: Dtype, rows: &mut normal::Rows) -> Result<()> {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for t in &shard.tensors {
        let end = at + t.shape.iter().product::<usize>() * dtype.bytes();
        let entry = serde_json::json!({
            "dtype": dtype.name(), "shape": t.shape, "data_offsets": [at, end]
        });
        header.insert(t.name.clone(), entry);
        at = end;
    }
    let mut header = serde_json::to_string(&header)?;
    // Data starts on a multiple of 4096, so that tiles share no page with the header.
    let pad = (4096 - (8 + header.len()) % 4096) % 4096;
    header.push_str(&" ".repeat(pad));
    let mut out = BufWriter::with_capacity(16 << 20, File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for t in &shard.tensors {
        match t.shape[..] {
            [count] => (0..count).try_for_each(|_| write_value(&mut out, 1.0, dtype))?,
            _ => write_random(&mut out, &t.shape, dtype, rows)?,
        }
    }
    Ok(out.flush()?)
}

fn write_random(
    out: &mut impl Write,
    shape: &[usize],
    dtype: Dtype,
    rows: &mut normal::Rows,
) -> Result<()> {
    let columns = shape.last().copied().unwrap_or(0);
    let count = shape.iter().product::<usize>() / columns.max(1);
    let mut row = Vec::with_capacity(columns * dtype.bytes());
    for _ in 0..count {
        row.clear();
        rows.next(columns, |value| write_value(&mut row, value, dtype))?;
        out.write_all(&row)?;
    }
    Ok(())
}

fn write_value(out: &mut impl Write, value: f32, dtype: Dtype) -> Result<()> {
    match dtype {
        Dtype::Bf16 => out.write_all(&half::bf16::from_f32(value).to_le_bytes())?,
        Dtype::F16 => out.write_all(&half::f16::from_f32(value).to_le_bytes())?,
        Dtype::F32 => out.write_all(&value.to_le_bytes())?,
    }
    Ok(())
}

fn write_index(dir: &Path, shards: &[Shard]) -> Result<()> {
    let mut map = serde_json::Map::new();
    for shard in shards {
        for t in &shard.tensors {
            map.insert(t.name.clone(), shard.file.clone().into());
        }
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    let path = dir.join("model.safetensors.index.json");
    Ok(std::fs::write(path, serde_json::to_string_pretty(&index)?)?)
}

fn write_config(dir: &Path, s: &Sizes, dtype: Dtype) -> Result<()> {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": s.hidden,
        "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "vocab_size": s.vocab,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": dtype.torch(),
        "bos_token_id": 1,
        "eos_token_id": 2,
    });
    let text = serde_json::to_string_pretty(&config)?;
    Ok(std::fs::write(dir.join("config.json"), text)?)
}
