//! Instructions with their names resolved: registers are slots, labels are indices.
//!
//! A register holds its bits zero-extended to 64, whatever its class.

use super::ops::Fun;

/// A type that an instruction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Pred,
    /// Bits (`b`) and unsigned integers of this width.
    U(u32),
    /// Signed integers of this width.
    S(u32),
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
}

impl Ty {
    pub fn parse(name: &str) -> Option<Ty> {
        Some(match name {
            "pred" => Ty::Pred,
            "b8" | "u8" => Ty::U(8),
            "b16" | "u16" => Ty::U(16),
            "b32" | "u32" => Ty::U(32),
            "b64" | "u64" => Ty::U(64),
            "s8" => Ty::S(8),
            "s16" => Ty::S(16),
            "s32" => Ty::S(32),
            "s64" => Ty::S(64),
            "f16" => Ty::F16,
            "bf16" => Ty::Bf16,
            "f16x2" => Ty::F16x2,
            "bf16x2" => Ty::Bf16x2,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::U(n) | Ty::S(n) => n,
            Ty::F16 | Ty::Bf16 => 16,
            Ty::F16x2 | Ty::Bf16x2 | Ty::F32 => 32,
            Ty::F64 => 64,
        }
    }
}

/// A register of the entry.
pub type Slot = u32;

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Lane,
    Warp,
}

/// A source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Src {
    Reg(Slot),
    /// A predicate, negated.
    Not(Slot),
    Imm(u64),
    Special(Special),
}

/// `base + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub base: Src,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Param,
    Global,
    Shared,
}

impl Space {
    pub fn name(self) -> &'static str {
        match self {
            Space::Param => "param",
            Space::Global => "global",
            Space::Shared => "shared",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Idx,
    Up,
    Down,
    Bfly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// The shape and types of a warp's product: `k`, and what the factors are. Sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub k: usize,
    pub ty: Ty,
}

/// Where the left factor of a warp group's product lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    Registers(Vec<Slot>),
    Shared { descriptor: Src, transposed: bool },
}

/// What an atomic orders beyond its own location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub acquires: bool,
    pub releases: bool,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub enum Op {
    /// A function of each lane's sources.
    /// `divides`: the second must not be zero; `mask` cuts the result to its type.
    Map {
        fun: Fun,
        d: Slot,
        src: [Src; 4],
        divides: bool,
        mask: u64,
    },
    /// `mov d, {parts}`: `bits` each, lowest first.
    Pack {
        d: Slot,
        bits: u32,
        parts: Vec<Src>,
    },
    /// `mov {parts}, a`.
    Unpack {
        d: Vec<Option<Slot>>,
        bits: u32,
        a: Src,
    },
    Setp {
        test: fn(u64, u64) -> bool,
        combine: Option<(Logic, Src)>,
        p: Slot,
        q: Option<Slot>,
        a: Src,
        b: Src,
    },
    /// Each destination with its width; `nc`: nothing writes there in the launch.
    Load {
        space: Space,
        ty: Ty,
        d: Vec<Option<(Slot, u32)>>,
        at: Address,
        nc: bool,
    },
    Store {
        space: Space,
        ty: Ty,
        src: Vec<Src>,
        at: Address,
    },
    /// Global or shared read-modify-write; `d` gets the old value.
    Atomic {
        space: Space,
        ty: Ty,
        fun: fn(u64, u64, u64) -> u64,
        order: Order,
        d: Option<Slot>,
        at: Address,
        b: Src,
        c: Src,
    },
    /// Shared from global, finished by a wait.
    CopyAsync {
        to: Address,
        from: Address,
        bytes: u32,
        valid: Option<Src>,
    },
    CopyCommit,
    /// Waits for all but the most recent groups.
    CopyWait {
        left: u32,
    },
    CopyWaitAll,
    Branch {
        to: u32,
        uniform: bool,
    },
    Exit,
    Nop,
    /// Waits until the launch ahead has ended.
    GridWait,
    /// Orders this thread's accesses for the whole device.
    Fence,
    Barrier {
        id: Src,
        threads: Option<Src>,
        waits: bool,
    },
    WarpSync {
        mask: Src,
    },
    Shuffle {
        mode: Shuffle,
        d: Slot,
        p: Option<Slot>,
        a: Src,
        b: Src,
        c: Src,
        mask: Src,
    },
    Vote {
        mode: Vote,
        d: Slot,
        a: Src,
        mask: Src,
    },
    /// The same function over all lanes of the mask.
    Redux {
        fun: fn(u64, u64) -> u64,
        d: Slot,
        a: Src,
        mask: Src,
    },
    ActiveMask {
        d: Slot,
    },
    LoadMatrix {
        trans: bool,
        d: Vec<Slot>,
        at: Address,
    },
    StoreMatrix {
        trans: bool,
        src: Vec<Src>,
        at: Address,
    },
    /// Registers are handed to the products that follow.
    ProductFence,
    ProductCommit,
    ProductWait {
        left: usize,
    },
    /// A product of a warp group, `64 × n × 16`.
    Product {
        n: usize,
        ty: Ty,
        d: Vec<Slot>,
        a: Left,
        b: Src,
        transposed: bool,
        /// Whether it adds to the sums.
        adds: Src,
    },
    /// A barrier in shared memory that counts arrivals and bytes.
    PhaseInit {
        at: Address,
        count: u64,
    },
    /// An arrival, which announces bytes.
    PhaseArrive {
        at: Address,
        bytes: Src,
    },
    /// Whether the phase of a parity is complete.
    PhaseTry {
        d: Slot,
        at: Address,
        parity: Src,
    },
    /// A box of a tensor map to shared memory; a barrier counts its bytes.
    BulkCopy {
        to: Address,
        from: Address,
        bytes: Src,
        barrier: Address,
    },
    BoxCopy {
        to: Address,
        map: Src,
        at: [Src; 2],
        barrier: Address,
    },
    /// Shared memory is handed to the hardware's own agent.
    ProxyFence,
    Mma {
        product: Product,
        d: Vec<Slot>,
        a: Vec<Src>,
        b: Vec<Src>,
        c: Vec<Src>,
    },
}

/// An instruction, its guard, and its line in the text.
#[derive(Clone, Debug)]
pub struct Inst {
    pub line: u32,
    /// A predicate and the value it must have.
    pub guard: Option<(Slot, bool)>,
    pub op: Op,
}

/// An entry, ready to run.
#[derive(Debug)]
pub struct Program {
    pub name: String,
    /// Name, offset and size of each parameter.
    pub params: Vec<(String, usize, usize)>,
    pub param_bytes: usize,
    pub max_threads: Option<u32>,
    /// Register names, by slot.
    pub registers: Vec<String>,
    /// Shared arrays: name, address, bytes. The last is the dynamic one, of unknown size.
    pub shared: Vec<(String, usize, usize)>,
    /// The address of dynamic shared memory, which is the end of the static arrays.
    pub dynamic: usize,
    pub code: Vec<Inst>,
}
