//! One conversation with an engine: its states and position.

use super::call::{CallContext, call};
use super::engine::Engine;
use super::integers::{outside, solve};
use super::pressure::Failed;
use super::tensor_bytes::{floats, tensor_bytes, tensor_from};
use super::{logits, states};
use crate::error::Error;
use candle_core::Tensor;
use trt_device::Slice;
use trt_graph::{Class, IntVar, Meaning, PAST, Positions, SEQ};
use trt_kernel::{DType, Env, Var};

/// One conversation with a shared engine, with states of its own: what a model of candle-transformers
/// keeps in its cache. The states are device memory until the session is dropped; an error in a call
/// leaves the session at the position before it.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    states: Vec<Slice>,
    position: usize,
    /// The positions that the states have seen, unless a call failed since. Only what grows can be
    /// taken back to fewer.
    held: Option<usize>,
}

impl Session {
    /// A session with empty states.
    ///
    /// # Errors
    /// If there is no memory for its states.
    pub(crate) fn new(engine: Engine) -> Result<Session, Error> {
        // What was acquired before a refusal is given back, so all of it is asked for again.
        let states = match states::acquire(engine.core()) {
            Err(e) if e.out_of_memory().is_some() => {
                let mut run = engine.run();
                let again = |_: &mut _| states::acquire(engine.core()).map_err(Failed::Yet);
                engine.core().shrink_and_retry(&mut run, again)?
            }
            other => other?,
        };
        Ok(Session {
            engine,
            states,
            position: 0,
            held: None,
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
            .profile()
            .classes
            .iter()
            .find_map(|c| c.max_context);
        max.and_then(|m| usize::try_from(m).ok())
    }

    /// Forgets everything: the next call starts at position 0.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Goes back to an earlier position, e.g. to drop the end of a conversation. A model that keeps something
    /// else than caches which grow (a recurrent state, say) cannot go on from there: calls are
    /// [`Error::NoWayBack`] until the session is [reset](Self::reset).
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Runs a decoder on tokens at the current position, in as many calls as the profile needs,
    /// and returns the last call's first output as f32: the logits of the last token.
    ///
    /// # Errors
    ///
    /// [`Error::NotADecoder`] for a model of another kind, [`Error::NoTokens`] without tokens,
    /// [`Error::ContextFull`] for more than the states hold, [`Error::OutsideProfile`] if no class serves
    /// the call, and whatever the device fails with.
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
    ///
    /// # Errors
    /// Those of [`prefill`](Self::prefill).
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>, Error> {
        self.prefill(&[token])
    }

    fn prefill_chunks(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.takes_tokens()?;
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
        let mut left = tokens;
        while !left.is_empty() {
            let (chunk, rest) = left.split_at(self.longest_call(left.len())?);
            left = rest;
            let bytes = chunk.iter().flat_map(|t| t.to_le_bytes()).collect();
            let (index, mut outputs) = self.run_bytes(chunk.len(), vec![bytes])?;
            let dtype = self.engine.core().programs()[index]
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
            self.moved(chunk.len());
            logits::check(&logits, self.position - 1)?;
        }
        Ok(logits)
    }

    /// Whether the model's only input is tokens, in all classes.
    fn takes_tokens(&self) -> Result<(), Error> {
        let mut programs = self.engine.core().programs().iter();
        let plain =
            programs.all(|p| matches!(&p.program.inputs[..], [only] if only.dtype == DType::U32));
        let mut ints = self.engine.profile().classes.iter().flat_map(|c| &c.ints);
        match (ints.any(|i| i.meaning() == Meaning::Seq), plain) {
            (true, true) => Ok(()),
            (true, false) => Err(Error::NotADecoder(
                "it takes other inputs than one of u32 tokens".into(),
            )),
            (false, _) => Err(Error::NotADecoder(format!("its profile has no '{SEQ}'"))),
        }
    }

    /// The most of so many new positions that one call takes here: classes may have long calls only at
    /// the start.
    fn longest_call(&self, new: usize) -> Result<usize, Error> {
        let (here, new) = (self.position as i64, new as i64);
        let fits = |class: &Class| {
            let Positions { past, seq } = class.positions()?;
            let (past, seq) = (class.ints[past].range, class.ints[seq].range);
            let room = class.max_context.unwrap_or(i64::MAX) - here;
            let longest = seq.max.min(new).min(room);
            let takes = (past.min..=past.max).contains(&here) && longest >= seq.min.max(1);
            takes.then_some(longest)
        };
        let classes = &self.engine.profile().classes;
        match classes.iter().filter_map(fits).max() {
            Some(longest) => Ok(longest as usize),
            None => Err(Error::outside(
                format!("{PAST}={here} {SEQ}={new}"),
                self.engine.profile(),
            )),
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
        Ok((index, self.call(index, env, &inputs)?))
    }

    /// The results of a program that takes nothing, as bytes.
    ///
    /// # Errors
    /// Whatever the device fails with.
    pub(crate) fn results(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.run_bytes(0, Vec::new())?.1)
    }

    fn moved(&mut self, by: usize) {
        self.position += by;
        self.held = Some(self.position);
    }

    /// Whether the states are what calls up to the position left.
    fn ready(&self, class: usize) -> Result<(), Error> {
        let programs = self.engine.core().programs();
        let moves = programs[class].class.positions().is_some();
        if !moves || self.position == 0 || self.held == Some(self.position) {
            return Ok(());
        }
        let stays = |i: usize| !programs.iter().all(|p| p.program.states[i].rewinds);
        let states = &programs[class].program.states;
        match (0..states.len()).find(|i| stays(*i)) {
            None => Ok(()),
            Some(state) => Err(Error::NoWayBack {
                position: self.position,
                state,
                shape: states[state].capacity.clone(),
                held: self.held,
            }),
        }
    }

    fn call(&mut self, class: usize, env: Env, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
        self.ready(class)?;
        // A call that fails may have changed some states and not others.
        self.held = None;
        let core = self.engine.core();
        core.count_call();
        let context = CallContext {
            core,
            class,
            env,
            inputs,
            states: &self.states,
            begins: self.position == 0,
        };
        call(&context, &mut core.run())
    }

    /// The first class that a call's integers fit.
    fn class(
        &self,
        value: impl Fn(&IntVar) -> Option<i64>,
        call: &str,
    ) -> Result<(usize, Env), Error> {
        for (index, class) in self.engine.profile().classes.iter().enumerate() {
            let values: Option<Vec<i64>> = class.ints.iter().map(&value).collect();
            if let Some(values) = values
                && class.accepts(&values)
            {
                let program = &self.engine.core().programs()[index].program;
                return Ok((index, program.env(&values)));
            }
        }
        Err(Error::outside(call.into(), self.engine.profile()))
    }

    /// Runs a call on candle tensors (on the CPU), one for each input in the order in which the
    /// model declared them, and returns its outputs. The runtime integers are read off the shapes;
    /// `past` is the session's position, which moves on by `seq`. Outputs are what the model
    /// computes: whether they are finite is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if an input is not what was declared, [`Error::Integer`] if no input shows a
    /// runtime integer (see [`run_with`](Self::run_with)), [`Error::OutsideProfile`] or
    /// [`Error::NoClass`] if no class
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
        let bytes = inputs
            .iter()
            .map(tensor_bytes)
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = self.call(index, env, &bytes)?;
        let program = &self.engine.core().programs()[index].program;
        let tensors = outputs
            .iter()
            .zip(&program.outputs)
            .map(|(bytes, (shape, dtype))| {
                let dims: Vec<usize> = shape.iter().map(|d| d.size(&env)).collect();
                tensor_from(bytes, &dims, *dtype)
            });
        let tensors = tensors.collect::<Result<Vec<_>, Error>>()?;
        let class = &self.engine.profile().classes[index];
        if let Some(positions) = class.positions() {
            self.moved(env.get(Var(positions.seq as u8)) as usize);
        }
        Ok(tensors)
    }

    /// The class and integers whose declared shapes are those of the inputs.
    fn fit(&self, inputs: &[Tensor], given: &[(&str, i64)]) -> Result<(usize, Env), Error> {
        let mut refused = Vec::new();
        for (index, p) in self.engine.core().programs().iter().enumerate() {
            refused.push(
                match solve(&p.program, &p.class, inputs, given, self.position) {
                    Ok(values) if p.class.accepts(&values) => {
                        return Ok((index, p.program.env(&values)));
                    }
                    Ok(values) => Error::outside(
                        outside(&p.program, &p.class, inputs, &values),
                        self.engine.profile(),
                    ),
                    Err(error) => error,
                },
            );
        }
        Err(self.refusal(refused))
    }

    /// Why no class serves a call: what all classes say, unless that is one thing.
    fn refusal(&self, mut refused: Vec<Error>) -> Error {
        let classes = &self.engine.profile().classes;
        let asks = |e: &Error| {
            matches!(
                e,
                Error::Integer { .. } | Error::NoInteger { .. } | Error::Contradiction { .. }
            )
        };
        if refused.len() == 1 || refused.iter().all(asks) && !refused.is_empty() {
            return refused.swap_remove(0);
        }
        let reason = |(class, error): (&trt_graph::Class, &Error)| match error {
            // They name the class and its ranges.
            Error::Input { .. } => error.to_string(),
            Error::OutsideProfile { call, .. } => {
                format!("{call} is outside of class {}", crate::error::class(class))
            }
            other => format!("class {}: {other}", crate::error::class(class)),
        };
        let reasons: Vec<String> = classes.iter().zip(&refused).map(reason).collect();
        let reasons = reasons.join("; ");
        Error::NoClass { reasons }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let states = std::mem::take(&mut self.states);
        self.engine.run().release(states);
    }
}

impl Engine {
    /// A new session with empty states.
    ///
    /// # Errors
    /// If the device has no memory for its states, even where resident weights make room.
    pub fn session(&self) -> Result<Session, Error> {
        Session::new(self.clone())
    }
}
