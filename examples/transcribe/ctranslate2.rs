//! The weights of a CTranslate2 model of whisper, under the names that other files of the model have, as safetensors.
//!
//! Such a file is a list of variables: a name, sizes, a type and bytes, all lengths ahead of what they count. Everything that
//! is read of it is checked against what is left, so a broken file is an error and nothing else. Weights are written as they lie
//! in it: it has queries, keys and values as one matrix, of which each is a range of rows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};

use super::whisper::{Activation, Config};

/// The versions of the format in which variables have types.
const VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
/// What is written at the head of a file for whisper.
const SPEC: &str = "WhisperSpec";
/// The most axes that a variable has.
const AXES: u8 = 4;
/// What CTranslate2 calls the GELU by the error function.
const GELU: u8 = 3;

/// A variable, by its type and sizes and as it lies in the file.
#[derive(Debug, PartialEq)]
pub struct Variable<'a> {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

/// All variables of a file, aliases included.
pub type Variables<'a> = HashMap<&'a str, Variable<'a>>;

/// What is left of a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8]> {
        let left = self.0.len();
        let split = self.0.split_at_checked(count);
        let (taken, rest) =
            split.with_context(|| format!("{what} of {count} bytes where {left} are left"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into()?)
    }

    fn byte(&mut self, what: &str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    fn number(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A text with a zero at its end, which its length counts.
    fn text(&mut self, what: &str) -> Result<&'a str> {
        let length = u16::from_le_bytes(self.array(what)?);
        let bytes = self.take(usize::from(length), what)?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        std::str::from_utf8(text).with_context(|| format!("{what} is no text"))
    }

    fn variable(&mut self, name: &str) -> Result<Variable<'a>> {
        let axes = self.byte("a rank")?;
        ensure!(
            axes <= AXES,
            "{name} has {axes} axes, at most {AXES} are known"
        );
        let mut shape = Vec::with_capacity(usize::from(axes));
        for _ in 0..axes {
            shape.push(self.number("a size")? as usize);
        }
        let dtype = match self.byte("a type")? {
            0 => Dtype::F32,
            1 => Dtype::I8,
            2 => Dtype::I16,
            3 => Dtype::I32,
            4 => Dtype::F16,
            5 => Dtype::BF16,
            other => bail!("{name} has type {other}, which is not known"),
        };
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let wanted = count.and_then(|n| n.checked_mul(dtype.bitsize() / 8));
        let length = self.number("a length")? as usize;
        ensure!(
            wanted == Some(length),
            "{name} is {dtype:?} {shape:?} in {length} bytes"
        );
        let bytes = self.take(length, name)?;
        Ok(Variable {
            dtype,
            shape,
            bytes,
        })
    }
}

/// The variables of a file.
///
/// # Errors
///
/// What in it is not as the format says, by name and number.
pub fn read(file: &[u8]) -> Result<Variables<'_>> {
    let mut left = Reader(file);
    let version = left.number("a version")?;
    ensure!(
        VERSIONS.contains(&version),
        "version {version} of the format, not {VERSIONS:?}"
    );
    let spec = left.text("the kind of model")?;
    ensure!(spec == SPEC, "a file for {spec:?}, not {SPEC}");
    left.number("a revision")?;
    let count = left.number("the number of variables")?;
    let mut all = Variables::new();
    for _ in 0..count {
        let name = left.text("a name")?;
        let variable = left.variable(name)?;
        ensure!(all.insert(name, variable).is_none(), "two variables {name}");
    }
    for _ in 0..left.number("the number of aliases")? {
        let (alias, name) = (left.text("an alias")?, left.text("a name")?);
        let of = all
            .get(name)
            .with_context(|| format!("{alias} is {name}, which is not there"))?;
        let variable = Variable {
            shape: of.shape.clone(),
            ..*of
        };
        ensure!(
            all.insert(alias, variable).is_none(),
            "two variables {alias}"
        );
    }
    ensure!(left.0.is_empty(), "{} bytes after the last", left.0.len());
    Ok(all)
}

/// Finds variables, and names weights.
struct Namer<'a> {
    all: &'a Variables<'a>,
    /// Weights by the names that they are written under.
    named: BTreeMap<String, TensorView<'a>>,
}

impl<'a> Namer<'a> {
    fn get(&self, name: &str) -> Result<&'a Variable<'a>> {
        self.all
            .get(name)
            .with_context(|| format!("there is no {name}"))
    }

    fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let shape = &self.get(name)?.shape;
        let found = <[usize; N]>::try_from(shape.as_slice());
        found
            .ok()
            .with_context(|| format!("{name} has shape {shape:?}, not {N} axes"))
    }

    /// A number that tells how the model computes.
    fn setting(&self, name: &str) -> Result<u16> {
        match self.get(name)?.bytes {
            [one] => Ok(u16::from(*one)),
            [low, high] => Ok(u16::from_le_bytes([*low, *high])),
            more => bail!("{name} has {} bytes", more.len()),
        }
    }

    fn name(&mut self, of: &str, name: String) -> Result<()> {
        self.rows(of, &[Some(&name)])
    }

    /// Gives names to equal parts of a variable's rows; a part without a name is to be zero.
    fn rows(&mut self, of: &str, names: &[Option<&str>]) -> Result<()> {
        let Variable {
            dtype,
            shape,
            bytes,
        } = self.get(of)?;
        ensure!(
            matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
            "{of} is {dtype:?}; f32, f16 and bf16 are read"
        );
        let rows = shape.first().copied().unwrap_or(0);
        ensure!(
            rows > 0 && !bytes.is_empty() && rows.is_multiple_of(names.len()),
            "{of} of shape {shape:?} has no {} equal parts",
            names.len()
        );
        let mut part = shape.clone();
        part[0] = rows / names.len();
        for (name, bytes) in names
            .iter()
            .zip(bytes.chunks_exact(bytes.len() / names.len()))
        {
            match name {
                Some(name) => {
                    let view = TensorView::new(*dtype, part.clone(), bytes)?;
                    self.named.insert(name.to_string(), view);
                }
                None => ensure!(
                    bytes.iter().all(|b| *b == 0),
                    "the keys of {of} are not zero"
                ),
            }
        }
        Ok(())
    }

    fn norm(&mut self, of: &str, name: &str) -> Result<()> {
        self.name(&format!("{of}/gamma"), format!("{name}.weight"))?;
        self.name(&format!("{of}/beta"), format!("{name}.bias"))
    }

    /// One product of several matrices, with a bias each; keys have none.
    fn joined(&mut self, of: &str, attention: &str, parts: &[&str]) -> Result<()> {
        let named = |end: &str| {
            let name = |part: &&str| format!("{attention}.{part}.{end}");
            parts.iter().map(name).collect::<Vec<String>>()
        };
        let (weights, biases) = (named("weight"), named("bias"));
        let weights: Vec<_> = weights.iter().map(|n| Some(n.as_str())).collect();
        let biases = biases
            .iter()
            .map(|n| (!n.ends_with("k_proj.bias")).then_some(n.as_str()));
        self.rows(&format!("{of}/weight"), &weights)?;
        self.rows(&format!("{of}/bias"), &biases.collect::<Vec<_>>())
    }

    /// The layers of a half of the model: how many there are.
    fn layers(&mut self, half: &str) -> Result<usize> {
        let name = |i: usize| format!("{half}/layer_{i}");
        let mut count = 0;
        while self
            .all
            .contains_key(format!("{}/ffn/linear_0/weight", name(count)).as_str())
        {
            let (of, to) = (name(count), format!("model.{half}.layers.{count}"));
            let (own, own_to) = (format!("{of}/self_attention"), format!("{to}.self_attn"));
            self.joined(
                &format!("{own}/linear_0"),
                &own_to,
                &["q_proj", "k_proj", "v_proj"],
            )?;
            self.joined(&format!("{own}/linear_1"), &own_to, &["out_proj"])?;
            self.norm(
                &format!("{own}/layer_norm"),
                &format!("{to}.self_attn_layer_norm"),
            )?;
            if half == "decoder" {
                let (other, other_to) = (format!("{of}/attention"), format!("{to}.encoder_attn"));
                self.joined(&format!("{other}/linear_0"), &other_to, &["q_proj"])?;
                self.joined(
                    &format!("{other}/linear_1"),
                    &other_to,
                    &["k_proj", "v_proj"],
                )?;
                self.joined(&format!("{other}/linear_2"), &other_to, &["out_proj"])?;
                self.norm(
                    &format!("{other}/layer_norm"),
                    &format!("{to}.encoder_attn_layer_norm"),
                )?;
            }
            self.joined(&format!("{of}/ffn/linear_0"), &to, &["fc1"])?;
            self.joined(&format!("{of}/ffn/linear_1"), &to, &["fc2"])?;
            self.norm(
                &format!("{of}/ffn/layer_norm"),
                &format!("{to}.final_layer_norm"),
            )?;
            count += 1;
        }
        self.norm(
            &format!("{half}/layer_norm"),
            &format!("model.{half}.layer_norm"),
        )?;
        let places = format!("model.{half}.embed_positions.weight");
        self.name(&format!("{half}/position_encodings/encodings"), places)?;
        Ok(count)
    }
}

/// The weights of a file under the names that others have for them, and what the model is.
///
/// # Errors
///
/// What is missing, or computed otherwise than in `whisper.rs`.
pub fn weights<'a>(all: &'a Variables<'a>) -> Result<(BTreeMap<String, TensorView<'a>>, Config)> {
    let mut namer = Namer {
        all,
        named: BTreeMap::new(),
    };
    for (name, only) in [
        ("activation", u16::from(GELU)),
        ("alibi", 0),
        ("pre_norm", 1),
        ("scale_embeddings", 0),
        ("start_from_zero_embedding", 0),
    ] {
        let name = format!("decoder/{name}");
        let found = namer.setting(&name)?;
        ensure!(found == only, "{name} is {found}; only {only} is computed");
    }
    for conv in ["conv1", "conv2"] {
        for end in ["weight", "bias"] {
            let name = format!("model.encoder.{conv}.{end}");
            namer.name(&format!("encoder/{conv}/{end}"), name)?;
        }
    }
    let (encoder_layers, decoder_layers) = (namer.layers("encoder")?, namer.layers("decoder")?);
    let words = "model.decoder.embed_tokens.weight".into();
    namer.name("decoder/embeddings/weight", words)?;
    let table = |a: &str| namer.get(a).map(|v| v.bytes.as_ptr());
    ensure!(
        table("decoder/projection/weight")? == table("decoder/embeddings/weight")?,
        "the last product has weights of its own"
    );
    let [vocab_size, d_model] = namer.shape("decoder/embeddings/weight")?;
    let [_, num_mel_bins, _] = namer.shape("encoder/conv1/weight")?;
    let rows = |name: &str| Ok::<_, anyhow::Error>(namer.shape::<2>(name)?[0]);
    let config = Config {
        vocab_size,
        num_mel_bins,
        d_model,
        max_source_positions: rows("encoder/position_encodings/encodings")?,
        max_target_positions: rows("decoder/position_encodings/encodings")?,
        encoder_layers,
        encoder_attention_heads: usize::from(namer.setting("encoder/num_heads")?),
        encoder_ffn_dim: rows("encoder/layer_0/ffn/linear_0/weight")?,
        decoder_layers,
        decoder_attention_heads: usize::from(namer.setting("decoder/num_heads")?),
        decoder_ffn_dim: rows("decoder/layer_0/ffn/linear_0/weight")?,
        activation_function: Activation::Gelu,
        scale_embedding: false,
    };
    Ok((namer.named, config))
}

/// Writes what a file in parts holds as safetensors with a configuration.
///
/// # Errors
///
/// Those of [`read`] and [`weights`], and of files.
pub fn convert(parts: &[PathBuf], out: &Path, config: &Path) -> Result<()> {
    let mut file = Vec::new();
    for part in parts {
        let bytes = std::fs::read(part);
        file.extend(bytes.with_context(|| format!("cannot read {}", part.display()))?);
    }
    let all = read(&file)?;
    let (named, about) = weights(&all)?;
    serialize_to_file(named, None, out)?;
    std::fs::write(config, serde_json::to_string_pretty(&about)?)?;
    Ok(())
}
