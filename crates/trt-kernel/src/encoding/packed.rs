//! Rows that are packed without loss, as `trt_pack` packs them.

use crate::DType;
use serde::{Deserialize, Serialize};
use trt_pack::{Arity, Kind};

/// How units of rows are packed: the dtype of their values, and how many of them a word of the code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PackedType {
    /// bf16, two values a word.
    Bf16Pairs,
    /// bf16, a value a word.
    Bf16Singles,
    /// f16, two values a word.
    F16Pairs,
    /// f16, a value a word.
    F16Singles,
}

impl PackedType {
    /// All of them.
    pub const ALL: [PackedType; 4] = [
        PackedType::Bf16Pairs,
        PackedType::Bf16Singles,
        PackedType::F16Pairs,
        PackedType::F16Singles,
    ];

    /// Values that a thread unpacks together.
    pub const PIECE: usize = 8;

    /// The one of a kind of values and of words.
    pub const fn of(kind: Kind, arity: Arity) -> PackedType {
        match (kind, arity) {
            (Kind::Bf16, Arity::Two) => PackedType::Bf16Pairs,
            (Kind::Bf16, Arity::One) => PackedType::Bf16Singles,
            (Kind::F16, Arity::Two) => PackedType::F16Pairs,
            (Kind::F16, Arity::One) => PackedType::F16Singles,
        }
    }

    /// What its values are.
    pub const fn kind(self) -> Kind {
        match self {
            PackedType::Bf16Pairs | PackedType::Bf16Singles => Kind::Bf16,
            PackedType::F16Pairs | PackedType::F16Singles => Kind::F16,
        }
    }

    /// How many of them a word stands for.
    pub const fn arity(self) -> Arity {
        match self {
            PackedType::Bf16Pairs | PackedType::F16Pairs => Arity::Two,
            PackedType::Bf16Singles | PackedType::F16Singles => Arity::One,
        }
    }

    /// The dtype of the values.
    pub const fn dtype(self) -> DType {
        match self.kind() {
            Kind::Bf16 => DType::BF16,
            Kind::F16 => DType::F16,
        }
    }

    /// The name that printed graphs and kernels use.
    pub const fn name(self) -> &'static str {
        match self {
            PackedType::Bf16Pairs => "bf16-packed",
            PackedType::Bf16Singles => "bf16-packed1",
            PackedType::F16Pairs => "f16-packed",
            PackedType::F16Singles => "f16-packed1",
        }
    }
}
