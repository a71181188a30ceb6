//! The functions of the language on elements: which there are, what they are called, what they mean.
//!
//! A function is declared once. Its name is that of its member in lower case, printed and parsed; its
//! definition, in f64, is what the reference of graphs computes and what back ends come near to in f32.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Declares an enum of functions with all its members and their names.
macro_rules! functions {
    ($(#[$doc:meta])* $name:ident: $($member:ident)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum $name {
            $($member),+
        }

        impl $name {
            /// All of them, in the order in which they are declared.
            pub const ALL: &'static [$name] = &[$($name::$member),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = match self {
                    $($name::$member => stringify!($member)),+
                };
                f.write_str(&name.to_lowercase())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                let found = $name::ALL.iter().find(|f| f.to_string() == text);
                found.copied().ok_or_else(|| format!("no function '{text}'"))
            }
        }
    };
}

functions! {
    /// One-operand functions, with candle's names and definitions: `Relu` of NaN is zero.
    Unary: Neg Abs Exp Log Sin Cos Tanh Sqr Sqrt Recip Erf Relu Silu Gelu GeluErf Sigmoid Floor Ceil Round Sign
}

functions! {
    /// Two-operand functions, with candle's names. Integers support all but `Pow`. Where an operand is
    /// NaN, `Maximum` and `Minimum` give the first, as candle does.
    Binary: Add Sub Mul Div Maximum Minimum Pow
}

functions! {
    /// Comparisons; the result is [`Ty::Bool`](crate::Ty::Bool).
    Compare: Eq Ne Lt Le Gt Ge
}

functions! {
    /// Folds over the columns of a row.
    Reduce: Sum Max Min
}

impl Unary {
    /// Whether integers have it too.
    pub fn of_integers(self) -> bool {
        matches!(self, Unary::Neg | Unary::Abs | Unary::Sqr | Unary::Sign)
    }

    /// Its value.
    pub fn defined(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tanh => x.tanh(),
            Unary::Sqr => x * x,
            Unary::Sqrt => x.sqrt(),
            Unary::Recip => 1.0 / x,
            Unary::Erf => erf(x),
            Unary::Relu => x.max(0.0),
            Unary::Silu => x / (1.0 + (-x).exp()),
            Unary::Gelu => {
                0.5 * x
                    * (1.0
                        + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Unary::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round(),
            Unary::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
        }
    }
}

/// The error function by its Maclaurin series (|x| < 3) or a continued fraction.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..60)
            .rev()
            .fold(0.0, |acc, n| f64::from(n) / 2.0 / (a + acc));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}

impl Binary {
    /// Whether integers have it too.
    pub fn of_integers(self) -> bool {
        self != Binary::Pow
    }

    /// Its value; that of integers, which divide towards zero, unless `float`.
    pub fn defined(self, a: f64, b: f64, float: bool) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div if float => a / b,
            Binary::Div => (a / b).trunc(),
            // With a NaN, the first.
            Binary::Maximum if a < b => b,
            Binary::Minimum if a > b => b,
            Binary::Maximum | Binary::Minimum => a,
            Binary::Pow => a.powf(b),
        }
    }
}

impl Compare {
    /// Whether it holds.
    pub fn defined(self, a: f64, b: f64) -> bool {
        match self {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        }
    }
}

impl Reduce {
    /// The fold of some values, from the neutral one on.
    pub fn defined(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Reduce::Sum => values.sum(),
            Reduce::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => values.fold(f64::INFINITY, f64::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_the_name_that_it_prints() {
        fn all<F: FromStr + fmt::Display + PartialEq + fmt::Debug + Copy>(all: &[F]) {
            for f in all {
                let found = f.to_string().parse::<F>().ok();
                assert_eq!(found, Some(*f));
            }
        }
        all(Unary::ALL);
        all(Binary::ALL);
        all(Compare::ALL);
        all(Reduce::ALL);
        assert_eq!(Unary::GeluErf.to_string(), "geluerf");
        assert!("GeluErf".parse::<Unary>().is_err());
    }
}
