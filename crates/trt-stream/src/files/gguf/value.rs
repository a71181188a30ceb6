//! A value of a GGUF file's metadata, read where it lies.
//!
//! Values were passed over once when the file was opened, so all that their lengths promise is there. The mapping is
//! not ours alone, so whoever reads a value again takes what is there and no more.

/// Lists in lists, the most.
pub(crate) const DEPTH: u32 = 4;

/// The type of a value, as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the format's own names")]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    /// In the order of their numbers in files.
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    pub(crate) fn of(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }

    /// Bytes of a number; of a text those of its length, of a list those of its type and length.
    pub(crate) const fn least_bytes(self) -> u64 {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::Text | Kind::U64 | Kind::I64 | Kind::F64 => 8,
            Kind::Array => 12,
        }
    }
}

/// A value of a GGUF file's metadata. Integers of all widths are one of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// An integer without a sign.
    Unsigned(u64),
    /// An integer with a sign.
    Signed(i64),
    /// A float of 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// Yes or no: a byte, which is 0 or 1 in files that are right.
    Bool(u8),
    /// A text, which is UTF-8 in files that are right.
    Text(&'a [u8]),
    /// A list.
    Array(Array<'a>),
}

/// A list of values of one type, each read when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: Kind,
    len: u64,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// How many values there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The type of its values.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values in turn.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Array {
            kind,
            len,
            mut bytes,
        } = *self;
        (0..len).map_while(move |_| take(kind, &mut bytes))
    }
}

/// The value of a type that begins here; none if the bytes end before it.
pub(crate) fn read<'a>(kind: Kind, mut bytes: &'a [u8]) -> Option<Value<'a>> {
    take(kind, &mut bytes)
}

fn take<'a>(kind: Kind, bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    Some(match kind {
        Kind::U8 => Value::Unsigned(u8::from_le_bytes(number(bytes)?).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(number(bytes)?).into()),
        Kind::U32 => Value::Unsigned(u32::from_le_bytes(number(bytes)?).into()),
        Kind::U64 => Value::Unsigned(u64::from_le_bytes(number(bytes)?)),
        Kind::I8 => Value::Signed(i8::from_le_bytes(number(bytes)?).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(number(bytes)?).into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(number(bytes)?).into()),
        Kind::I64 => Value::Signed(i64::from_le_bytes(number(bytes)?)),
        Kind::F32 => Value::F32(f32::from_le_bytes(number(bytes)?)),
        Kind::F64 => Value::F64(f64::from_le_bytes(number(bytes)?)),
        Kind::Bool => Value::Bool(u8::from_le_bytes(number(bytes)?)),
        Kind::Text => Value::Text(text(bytes)?),
        Kind::Array => {
            let kind = Kind::of(u32::from_le_bytes(number(bytes)?))?;
            let len = u64::from_le_bytes(number(bytes)?);
            let list = *bytes;
            pass(kind, len, bytes, 1)?;
            Value::Array(Array {
                kind,
                len,
                bytes: &list[..list.len() - bytes.len()],
            })
        }
    })
}

/// Takes what so many values of a type lie in.
fn pass(kind: Kind, count: u64, bytes: &mut &[u8], depth: u32) -> Option<()> {
    match kind {
        Kind::Text => (0..count).try_for_each(|_| text(bytes).map(drop)),
        Kind::Array if depth == DEPTH => None,
        Kind::Array => (0..count).try_for_each(|_| {
            let kind = Kind::of(u32::from_le_bytes(number(bytes)?))?;
            let count = u64::from_le_bytes(number(bytes)?);
            pass(kind, count, bytes, depth + 1)
        }),
        number => some(bytes, count.checked_mul(number.least_bytes())?).map(drop),
    }
}

fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*number)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u64::from_le_bytes(number(bytes)?);
    some(bytes, len)
}

fn some<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}
