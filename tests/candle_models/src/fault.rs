//! What a case may fail with, told apart by where it happens.

use std::fmt;

/// Why a way of calling a model gives nothing to compare, or something else than candle.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// candle's own model does not load or run so.
    Oracle(String),
    /// What candle gives compares nothing: it is no number, or next to nothing.
    Nothing(String),
    /// The model does not trace or compile.
    Compile(String),
    /// An engine does not run it.
    Run(String),
    /// A result differs from candle's.
    Differs(String),
    /// Results have other bits at another budget.
    Bits(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Oracle(why) => write!(f, "candle refuses: {why}"),
            Fault::Nothing(why) => write!(f, "{why}"),
            Fault::Compile(why) => write!(f, "{why}"),
            Fault::Run(why) => write!(f, "in a call: {why}"),
            Fault::Differs(why) => write!(f, "differs from candle: {why}"),
            Fault::Bits(why) => write!(f, "other bits at another budget: {why}"),
        }
    }
}

impl Fault {
    /// Whether an engine gives an answer that is not candle's.
    pub fn is_silent(&self) -> bool {
        match self {
            Fault::Differs(_) | Fault::Bits(_) => true,
            Fault::Oracle(_) | Fault::Nothing(_) | Fault::Compile(_) | Fault::Run(_) => false,
        }
    }

    /// Whether candle itself does not run so, which is then no way of the model.
    pub fn is_candles(&self) -> bool {
        match self {
            Fault::Oracle(_) => true,
            Fault::Nothing(_)
            | Fault::Compile(_)
            | Fault::Run(_)
            | Fault::Differs(_)
            | Fault::Bits(_) => false,
        }
    }
}
