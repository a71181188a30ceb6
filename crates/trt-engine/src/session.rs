//! One conversation with an engine: its states and position.

use crate::call::call;
use crate::integers::solve;
use crate::pressure::Failed;
use crate::{Engine, Error, logits, states};
use candle_core::{Device as CandleDevice, Tensor};
use std::sync::atomic::Ordering;
use trt_device::Slice;
use trt_graph::{IntVar, Meaning, PAST, SEQ};
use trt_kernel::{DType, Env, Var};

/// States of their own on a shared engine. The states are device memory until the session is
/// dropped; an error in a call leaves the session at the position before it.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    states: Vec<Slice>,
    position: usize,
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Result<Session, Error> {
        // What was acquired before a refusal is given back, so all of it is asked for again.
        let states = match states::acquire(&engine.0) {
            Err(e) if e.out_of_memory().is_some() => {
                let mut run = engine.run();
                let again = |_: &mut _| states::acquire(&engine.0).map_err(Failed::Yet);
                engine.0.giving_way(&mut run, again)?
            }
            other => other?,
        };
        Ok(Session {
            engine,
            states,
            position: 0,
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Positions that are cached.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions that the states can hold, for a decoder.
    pub fn max_context(&self) -> Option<usize> {
        let max = self
            .engine
            .0
            .profile
            .classes
            .iter()
            .find_map(|c| c.max_context);
        max.and_then(|m| usize::try_from(m).ok())
    }

    /// Forgets everything: the next call starts at position 0.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Goes back to an earlier position, e.g. to drop the end of a conversation.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Runs a decoder on tokens at the current position, in as many calls as the profile needs,
    /// and returns the last call's first output as f32: the logits of the last token.
    ///
    /// # Errors
    ///
    /// Logits of which some are NaN or +infinite, or all -infinite, are [`Error::NotFinite`]: no
    /// token can be chosen by them. -infinity for some is how a model excludes tokens, and passes.
    /// After this and every other error the session is at the position before the call.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let start = self.position;
        let result = self.prefill_chunks(tokens);
        if result.is_err() {
            self.position = start;
        }
        result
    }

    /// Runs a decoder on one token, as [`prefill`](Self::prefill) does on several.
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>, Error> {
        self.prefill(&[token])
    }

    fn prefill_chunks(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        let longest = self.longest_call()?;
        if let Some(max) = self.max_context()
            && self.position + tokens.len() > max
        {
            return Err(Error::ContextFull {
                past: self.position,
                new: tokens.len(),
                max,
            });
        }
        let mut logits = Vec::new();
        for chunk in tokens.chunks(longest) {
            let bytes = chunk.iter().flat_map(|t| t.to_le_bytes()).collect();
            let (index, mut outputs) = self.run_bytes(chunk.len(), vec![bytes])?;
            let dtype = self.engine.0.programs[index]
                .program
                .outputs
                .first()
                .map(|o| o.1);
            logits = match (dtype, outputs.is_empty()) {
                (Some(DType::F32), false) => floats(&outputs.swap_remove(0)),
                (Some(other), _) => {
                    return Err(Error::NotADecoder(format!(
                        "its first output is {other}, not f32"
                    )));
                }
                _ => return Err(Error::NotADecoder("it has no output".into())),
            };
            self.position += chunk.len();
            logits::check(&logits, self.position - 1)?;
        }
        Ok(logits)
    }

    /// The longest `seq` of one call.
    fn longest_call(&self) -> Result<usize, Error> {
        let inner = &self.engine.0;
        let inputs = inner
            .programs
            .first()
            .map_or(&[][..], |p| &p.program.inputs);
        let plain = matches!(inputs, [only] if only.dtype == DType::U32);
        let seq = inner
            .profile
            .classes
            .iter()
            .flat_map(|c| &c.ints)
            .filter(|i| i.meaning() == Meaning::Seq);
        match seq.map(|i| i.range.max).max() {
            Some(max) if plain => Ok(max.max(1) as usize),
            Some(_) => Err(Error::NotADecoder(
                "it takes other inputs than one of u32 tokens".into(),
            )),
            None => Err(Error::NotADecoder(format!("its profile has no '{SEQ}'"))),
        }
    }

    /// One call of a decoder: `seq` new positions with the bytes of each input.
    fn run_bytes(
        &mut self,
        seq: usize,
        inputs: Vec<Vec<u8>>,
    ) -> Result<(usize, Vec<Vec<u8>>), Error> {
        let past = self.position;
        let value = |int: &IntVar| match int.meaning() {
            Meaning::Past => Some(past as i64),
            Meaning::Seq => Some(seq as i64),
            Meaning::Own => None,
        };
        let (index, env) = self.class(value, &format!("{PAST}={past} {SEQ}={seq}"))?;
        Ok((index, self.call(index, env, inputs)?))
    }

    fn call(&self, index: usize, env: Env, inputs: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
        let engine = &self.engine.0;
        engine.calls.fetch_add(1, Ordering::Relaxed);
        call(engine, &mut engine.run(), index, env, inputs, &self.states)
    }

    /// The first class that a call's integers fit.
    fn class(
        &self,
        value: impl Fn(&IntVar) -> Option<i64>,
        call: &str,
    ) -> Result<(usize, Env), Error> {
        for (index, class) in self.engine.0.profile.classes.iter().enumerate() {
            let values: Option<Vec<i64>> = class.ints.iter().map(&value).collect();
            if let Some(values) = values
                && class.accepts(&values)
            {
                return Ok((index, Env::new(&values)));
            }
        }
        Err(Error::outside(call.into(), &self.engine.0.profile))
    }

    /// Runs a call on candle tensors (on the CPU), one for each input in the order in which the
    /// model declared them, and returns its outputs. The runtime integers are read off the shapes;
    /// `past` is the session's position, which moves on by `seq`. Outputs are what the model
    /// computes: whether they are finite is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if an input is not what was declared, [`Error::Integer`] if no input shows a
    /// runtime integer (see [`run_with`](Self::run_with)), [`Error::OutsideProfile`] if no class
    /// serves the call, and whatever the device fails with.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.run_with(inputs, &[])
    }

    /// As [`run`](Self::run), with values of runtime integers by name: of those that no input's
    /// shape shows, and of others if they agree with the shapes and the session's position.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run); [`Error::NoInteger`] for a name that the profile does not have,
    /// and [`Error::Contradiction`] for a value that contradicts another one.
    pub fn run_with(
        &mut self,
        inputs: &[Tensor],
        integers: &[(&str, i64)],
    ) -> Result<Vec<Tensor>, Error> {
        let (index, env) = self.fit(inputs, integers)?;
        let program = &self.engine.0.programs[index].program;
        let bytes = inputs
            .iter()
            .map(tensor_bytes)
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = self.call(index, env, bytes)?;
        let tensors = outputs
            .iter()
            .zip(&program.outputs)
            .map(|(bytes, (shape, dtype))| {
                let dims: Vec<usize> = shape.iter().map(|d| d.size(&env)).collect();
                tensor_from(bytes, &dims, *dtype)
            });
        let tensors = tensors.collect::<Result<Vec<_>, Error>>()?;
        let class = &self.engine.0.profile.classes[index];
        if let Some(positions) = class.positions() {
            self.position += env.get(Var(positions.seq as u8)) as usize;
        }
        Ok(tensors)
    }

    /// The class and integers whose declared shapes are those of the inputs.
    fn fit(&self, inputs: &[Tensor], given: &[(&str, i64)]) -> Result<(usize, Env), Error> {
        let mut last = None;
        for (index, p) in self.engine.0.programs.iter().enumerate() {
            match solve(&p.program.inputs, &p.class, inputs, given, self.position) {
                Ok(values) if p.class.accepts(&values) => return Ok((index, Env::new(&values))),
                Ok(values) => {
                    last = last.or(Some(Error::outside(
                        p.class.describe(&values),
                        &self.engine.0.profile,
                    )))
                }
                Err(e) => last = last.or(Some(e)),
            }
        }
        Err(last.unwrap_or_else(|| Error::outside("this call".into(), &self.engine.0.profile)))
    }
}

impl Drop for Session {
    /// What was recorded keeps the states.
    fn drop(&mut self) {
        let places: Vec<u64> = self.states.iter().map(|s| s.address()).collect();
        self.engine.run().recorded.forget(Some(&places));
    }
}

pub(crate) fn candle_dtype(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::U8 => candle_core::DType::U8,
        DType::U32 => candle_core::DType::U32,
        DType::I64 => candle_core::DType::I64,
        DType::BF16 => candle_core::DType::BF16,
        DType::F16 => candle_core::DType::F16,
        DType::F32 => candle_core::DType::F32,
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| f32::from_le_bytes(*c))
        .collect()
}

fn tensor_bytes(t: &Tensor) -> Result<Vec<u8>, Error> {
    let flat = t.flatten_all()?;
    Ok(match t.dtype() {
        candle_core::DType::U8 => flat.to_vec1::<u8>()?,
        candle_core::DType::U32 => flat
            .to_vec1::<u32>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::I64 => flat
            .to_vec1::<i64>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::BF16 => flat
            .to_vec1::<half::bf16>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::F16 => flat
            .to_vec1::<half::f16>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        _ => flat
            .to_vec1::<f32>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    })
}

fn tensor_from(bytes: &[u8], dims: &[usize], dtype: DType) -> Result<Tensor, Error> {
    Ok(Tensor::from_raw_buffer(
        bytes,
        candle_dtype(dtype),
        dims,
        &CandleDevice::Cpu,
    )?)
}
