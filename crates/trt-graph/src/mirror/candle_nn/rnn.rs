//! Recurrent layers: one step after the other, each of them some products.

use super::ops::sigmoid;
use super::var_builder::VarBuilder;
use crate::mirror::device::Device;
use crate::mirror::index::IndexOp;
use crate::mirror::tensor::Tensor;
use candle_core::{DType, Result, bail};
use candle_nn::Init;
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;

/// A layer that goes through a sequence step by step.
pub trait RNN {
    /// What a step leaves for the next.
    type State: Clone;

    /// Zeros.
    ///
    /// # Errors
    ///
    /// If they are too large.
    fn zero_state(&self, batch_dim: usize) -> Result<Self::State>;

    /// One step over an input `[b, features]`.
    ///
    /// # Errors
    ///
    /// If input or state do not fit.
    fn step(&self, input: &Tensor, state: &Self::State) -> Result<Self::State>;

    /// The states of all steps over an input `[b, seq, features]` from zeros on.
    ///
    /// # Errors
    ///
    /// If the input does not fit.
    #[track_caller]
    fn seq(&self, input: &Tensor) -> Result<Vec<Self::State>> {
        let state = self.zero_state(input.dim(0)?)?;
        self.seq_init(input, &state)
    }

    /// The states of all steps over an input `[b, seq, features]`.
    ///
    /// # Errors
    ///
    /// If input or state do not fit.
    #[track_caller]
    fn seq_init(&self, input: &Tensor, init_state: &Self::State) -> Result<Vec<Self::State>> {
        let (_, steps, _) = input.dims3()?;
        let mut states: Vec<Self::State> = Vec::with_capacity(steps);
        for i in 0..steps {
            let state = states.last().unwrap_or(init_state);
            states.push(self.step(&input.i((.., i, ..))?, state)?);
        }
        Ok(states)
    }

    /// What the states of all steps say, as one tensor.
    ///
    /// # Errors
    ///
    /// If there is none, or they differ in shape.
    fn states_to_tensor(&self, states: &[Self::State]) -> Result<Tensor>;
}

/// The weights of a layer with so many gates, and its sizes.
#[derive(Clone, Debug)]
struct Gates {
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Option<Tensor>,
    b_hh: Option<Tensor>,
    hidden_dim: usize,
    dtype: DType,
}

impl Gates {
    /// The tensors `weight_ih_..`, `weight_hh_..` and, where said, `bias_ih_..` and `bias_hh_..`.
    #[track_caller]
    fn new(
        sizes: (usize, usize, usize),
        suffix: &str,
        biases: (bool, bool),
        vb: &VarBuilder,
    ) -> Result<Gates> {
        let (gates, inputs, hidden_dim) = sizes;
        let Some(rows) = hidden_dim.checked_mul(gates) else {
            bail!("a recurrent layer with a state of {hidden_dim} elements");
        };
        let bias = |wanted: bool, name: &str| match wanted {
            true => vb.get(rows, &format!("{name}_{suffix}")).map(Some),
            false => Ok(None),
        };
        Ok(Gates {
            w_ih: vb.get((rows, inputs), &format!("weight_ih_{suffix}"))?,
            w_hh: vb.get((rows, hidden_dim), &format!("weight_hh_{suffix}"))?,
            b_ih: bias(biases.0, "bias_ih")?,
            b_hh: bias(biases.1, "bias_hh")?,
            hidden_dim,
            dtype: vb.dtype(),
        })
    }

    /// What the gates get of the input, and of the state.
    #[track_caller]
    fn of(&self, input: &Tensor, state: &Tensor) -> Result<(Tensor, Tensor)> {
        let linear = |x: &Tensor, w: &Tensor, b: &Option<Tensor>| {
            let y = x.matmul(&w.t()?)?;
            match b {
                Some(b) => y.broadcast_add(b),
                None => Ok(y),
            }
        };
        Ok((
            linear(input, &self.w_ih, &self.b_ih)?,
            linear(state, &self.w_hh, &self.b_hh)?,
        ))
    }

    #[track_caller]
    fn zeros(&self, batch: usize) -> Result<Tensor> {
        Tensor::zeros((batch, self.hidden_dim), self.dtype, &Device::Cpu)
    }
}

/// What a step of an [`LSTM`] leaves, both `[b, hidden]`.
#[derive(Debug, Clone)]
pub struct LSTMState {
    /// The hidden state, which is the output.
    pub h: Tensor,
    /// The cell.
    pub c: Tensor,
}

impl LSTMState {
    /// From its parts.
    pub fn new(h: Tensor, c: Tensor) -> Self {
        LSTMState { h, c }
    }

    /// The hidden state, which is the output.
    pub fn h(&self) -> &Tensor {
        &self.h
    }

    /// The cell.
    pub fn c(&self) -> &Tensor {
        &self.c
    }
}

/// Which of two layers' weights these are, by name.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// The one that reads from the start.
    Forward,
    /// The one that reads from the end.
    Backward,
}

/// How an [`LSTM`] behaves. What weights would be made of is for training.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "candle's names")]
pub struct LSTMConfig {
    pub w_ih_init: Init,
    pub w_hh_init: Init,
    pub b_ih_init: Option<Init>,
    pub b_hh_init: Option<Init>,
    pub layer_idx: usize,
    pub direction: Direction,
}

impl Default for LSTMConfig {
    fn default() -> Self {
        Self {
            b_ih_init: Some(Init::Const(0.)),
            b_hh_init: Some(Init::Const(0.)),
            ..Self::default_no_bias()
        }
    }
}

impl LSTMConfig {
    /// Without biases.
    pub fn default_no_bias() -> Self {
        Self {
            w_ih_init: DEFAULT_KAIMING_UNIFORM,
            w_hh_init: DEFAULT_KAIMING_UNIFORM,
            b_ih_init: None,
            b_hh_init: None,
            layer_idx: 0,
            direction: Direction::Forward,
        }
    }
}

/// A layer with a cell and gates for input, forgetting and output.
#[derive(Clone, Debug)]
pub struct LSTM {
    gates: Gates,
    config: LSTMConfig,
}

impl LSTM {
    /// A layer with the tensors `weight_ih_l0`, `weight_hh_l0` and, where the configuration has biases,
    /// `bias_ih_l0` and `bias_hh_l0`; `_reverse` behind them in the other direction.
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape.
    #[track_caller]
    pub fn new(
        in_dim: usize,
        hidden_dim: usize,
        config: LSTMConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        let suffix = match config.direction {
            Direction::Forward => format!("l{}", config.layer_idx),
            Direction::Backward => format!("l{}_reverse", config.layer_idx),
        };
        let biases = (config.b_ih_init.is_some(), config.b_hh_init.is_some());
        let gates = Gates::new((4, in_dim, hidden_dim), &suffix, biases, &vb)?;
        Ok(Self { gates, config })
    }

    /// How it behaves.
    pub fn config(&self) -> &LSTMConfig {
        &self.config
    }
}

/// As [`LSTM::new`].
///
/// # Errors
///
/// As [`LSTM::new`].
#[track_caller]
pub fn lstm(in_dim: usize, hidden_dim: usize, config: LSTMConfig, vb: VarBuilder) -> Result<LSTM> {
    LSTM::new(in_dim, hidden_dim, config, vb)
}

impl RNN for LSTM {
    type State = LSTMState;

    #[track_caller]
    fn zero_state(&self, batch_dim: usize) -> Result<Self::State> {
        let zeros = self.gates.zeros(batch_dim)?;
        Ok(LSTMState::new(zeros.clone(), zeros))
    }

    #[track_caller]
    fn step(&self, input: &Tensor, state: &Self::State) -> Result<Self::State> {
        let (of_input, of_state) = self.gates.of(input, &state.h)?;
        let gates = (of_input + of_state)?.chunk(4, 1)?;
        let [input, forget, cell, output] = gates.as_slice() else {
            bail!("an LSTM with a state of {} elements", self.gates.hidden_dim);
        };
        let kept = (sigmoid(forget)? * &state.c)?;
        let c = (kept + (sigmoid(input)? * cell.tanh()?)?)?;
        let h = (sigmoid(output)? * c.tanh()?)?;
        Ok(LSTMState { h, c })
    }

    #[track_caller]
    fn states_to_tensor(&self, states: &[Self::State]) -> Result<Tensor> {
        let outputs: Vec<&Tensor> = states.iter().map(LSTMState::h).collect();
        Tensor::stack(&outputs, 1)
    }
}

/// What a step of a [`GRU`] leaves.
#[derive(Debug, Clone)]
pub struct GRUState {
    /// The hidden state `[b, hidden]`, which is the output.
    pub h: Tensor,
}

impl GRUState {
    /// The hidden state, which is the output.
    pub fn h(&self) -> &Tensor {
        &self.h
    }
}

/// How a [`GRU`] behaves. What weights would be made of is for training.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "candle's names")]
pub struct GRUConfig {
    pub w_ih_init: Init,
    pub w_hh_init: Init,
    pub b_ih_init: Option<Init>,
    pub b_hh_init: Option<Init>,
}

impl Default for GRUConfig {
    fn default() -> Self {
        Self {
            b_ih_init: Some(Init::Const(0.)),
            b_hh_init: Some(Init::Const(0.)),
            ..Self::default_no_bias()
        }
    }
}

impl GRUConfig {
    /// Without biases.
    pub fn default_no_bias() -> Self {
        Self {
            w_ih_init: DEFAULT_KAIMING_UNIFORM,
            w_hh_init: DEFAULT_KAIMING_UNIFORM,
            b_ih_init: None,
            b_hh_init: None,
        }
    }
}

/// A layer with gates for resetting and updating its state.
#[derive(Clone, Debug)]
pub struct GRU {
    gates: Gates,
    config: GRUConfig,
}

impl GRU {
    /// A layer with the tensors `weight_ih_l0`, `weight_hh_l0` and, where the configuration has biases,
    /// `bias_ih_l0` and `bias_hh_l0`.
    ///
    /// # Errors
    ///
    /// If a weight is missing or has another shape.
    #[track_caller]
    pub fn new(
        in_dim: usize,
        hidden_dim: usize,
        config: GRUConfig,
        vb: VarBuilder,
    ) -> Result<Self> {
        let biases = (config.b_ih_init.is_some(), config.b_hh_init.is_some());
        let gates = Gates::new((3, in_dim, hidden_dim), "l0", biases, &vb)?;
        Ok(Self { gates, config })
    }

    /// How it behaves.
    pub fn config(&self) -> &GRUConfig {
        &self.config
    }
}

/// As [`GRU::new`].
///
/// # Errors
///
/// As [`GRU::new`].
#[track_caller]
pub fn gru(in_dim: usize, hidden_dim: usize, config: GRUConfig, vb: VarBuilder) -> Result<GRU> {
    GRU::new(in_dim, hidden_dim, config, vb)
}

impl RNN for GRU {
    type State = GRUState;

    #[track_caller]
    fn zero_state(&self, batch_dim: usize) -> Result<Self::State> {
        let h = self.gates.zeros(batch_dim)?;
        Ok(GRUState { h })
    }

    #[track_caller]
    fn step(&self, input: &Tensor, state: &Self::State) -> Result<Self::State> {
        let (of_input, of_state) = self.gates.of(input, &state.h)?;
        let (of_input, of_state) = (of_input.chunk(3, 1)?, of_state.chunk(3, 1)?);
        let ([ri, zi, ni], [rs, zs, ns]) = (of_input.as_slice(), of_state.as_slice()) else {
            bail!("a GRU with a state of {} elements", self.gates.hidden_dim);
        };
        let (reset, update) = (sigmoid(&(ri + rs)?)?, sigmoid(&(zi + zs)?)?);
        let new = (ni + (reset * ns)?)?.tanh()?;
        let kept = (&update * &state.h)?;
        let h = (kept - ((update - 1.0)? * new)?)?;
        Ok(GRUState { h })
    }

    #[track_caller]
    fn states_to_tensor(&self, states: &[Self::State]) -> Result<Tensor> {
        let outputs: Vec<&Tensor> = states.iter().map(GRUState::h).collect();
        Tensor::cat(&outputs, 1)
    }
}
