//! What a caller may ask for, and what it gets.
//!
//! A budget counts bytes of weights on the device: pinned, staging, resident and ring. A request above
//! the total is clamped and the reply says so; one below the floor is an error that names the
//! floor's parts. Nothing here moves a byte.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much device memory the weights may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Request {
    /// This many bytes; 0 is [`Request::Minimum`].
    Bytes(u64),
    /// This part of all weights.
    Percent(Percent),
    /// Whatever is free.
    Automatic,
    /// Everything resident, nothing streamed.
    Full,
    /// As little as possible.
    Minimum,
}

/// A share of the whole, exact to a ten-thousandth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    millionths: u64,
}

impl Percent {
    /// This many millionths of the whole: 250 000 is 25 %.
    pub const fn from_millionths(millionths: u64) -> Self {
        Percent { millionths }
    }

    /// The share in millionths.
    pub const fn millionths(self) -> u64 {
        self.millionths
    }

    /// The share of `total`, rounded down; saturates.
    pub fn of(self, total: u64) -> u64 {
        let share = u128::from(total) * u128::from(self.millionths) / 1_000_000;
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// A request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad budget '{text}': {reason}")]
pub struct ParseRequestError {
    /// What was given.
    pub text: String,
    /// What is wrong.
    pub reason: &'static str,
}

const FORMS: &str = "use bytes, a size such as 64MiB, 64M, 1.5GiB or 512KB, a share such as 25%, \
                     or auto, full or min";

/// A letter alone is a binary unit, as tools of the system and of containers read it.
const UNITS: [(&str, u64); 13] = [
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

impl FromStr for Request {
    type Err = ParseRequestError;

    fn from_str(text: &str) -> Result<Self, ParseRequestError> {
        parse(text).map_err(|reason| ParseRequestError {
            text: text.to_string(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Request, &'static str> {
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "" => return Err("it is empty"),
        "auto" => return Ok(Request::Automatic),
        "full" => return Ok(Request::Full),
        "min" => return Ok(Request::Minimum),
        _ => {}
    }
    if text.starts_with('-') {
        return Err("it is negative");
    }
    if text.starts_with('+') {
        return Err("it has a sign");
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    // One blank may stand between a number and its unit, and none elsewhere.
    let unit = match unit.strip_prefix(' ') {
        Some(unit) if !number.is_empty() && !unit.is_empty() => unit,
        _ => unit,
    };
    if text.starts_with(char::is_whitespace) || unit.contains(char::is_whitespace) {
        return Err("it contains blanks");
    }
    if unit == "%" {
        return scaled(number, 10_000).map(|m| Request::Percent(Percent::from_millionths(m)));
    }
    if unit.is_empty() {
        return match number.contains('.') {
            true => Err("bytes are whole"),
            false => scaled(number, 1).map(Request::Bytes),
        };
    }
    match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => scaled(number, *bytes).map(Request::Bytes),
        None => Err(FORMS),
    }
}

/// A decimal number times `unit`, rounded down.
fn scaled(number: &str, unit: u64) -> Result<u64, &'static str> {
    let (whole, part) = match number.split_once('.') {
        Some((_, "")) => return Err("digits are missing after the point"),
        Some((whole, part)) => (whole, part),
        None => (number, ""),
    };
    if whole.is_empty() {
        return Err(FORMS);
    }
    if part.contains('.') {
        return Err("it has two points");
    }
    // 18 digits of a fraction times the largest unit fit in a u128.
    let part = &part[..part.len().min(18)];
    let overflow = "it is above 2^64 - 1 bytes";
    let digits = |d: &str| match d {
        "" => Ok(0),
        d => d.parse::<u64>().map_err(|_| overflow),
    };
    let fraction = u128::from(digits(part)?) * u128::from(unit) / 10u128.pow(part.len() as u32);
    let bytes = u128::from(digits(whole)?) * u128::from(unit) + fraction;
    u64::try_from(bytes).map_err(|_| overflow)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.millionths / 10_000, self.millionths % 10_000);
        let part = format!("{part:04}");
        match part.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            part => write!(f, "{whole}.{part}%"),
        }
    }
}

impl fmt::Display for Request {
    /// What [`FromStr`] reads back: exact multiples of a binary unit with the unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Automatic => f.write_str("auto"),
            Request::Full => f.write_str("full"),
            Request::Minimum => f.write_str("min"),
            Request::Percent(p) => p.fmt(f),
            Request::Bytes(b) => {
                let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
                match units.iter().find(|(_, s)| *b > 0 && b % (1 << s) == 0) {
                    Some((name, shift)) => write!(f, "{}{name}", b >> shift),
                    None => write!(f, "{b}"),
                }
            }
        }
    }
}

impl TryFrom<String> for Request {
    type Error = ParseRequestError;
    fn try_from(text: String) -> Result<Self, ParseRequestError> {
        text.parse()
    }
}

impl From<Request> for String {
    fn from(request: Request) -> String {
        request.to_string()
    }
}

/// What bounds a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all weights that the budget counts, each in the form that takes most: the largest
    /// useful budget.
    pub total: u64,
    /// The budget from which on nothing streams; 0 stands for the total. It is less where weights are
    /// packed and turn plain with more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub still: u64,
    /// The bytes that shares are of: all weights, plain where they have such a form; 0 stands for the
    /// total.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub plain: u64,
    /// Bytes of weights that are always on the device.
    pub pinned: u64,
    /// Bytes of the places where what is packed waits to be unpacked, which are always there too; 0
    /// where nothing is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub staging: u64,
    /// Slots of the smallest ring.
    pub slots: u32,
    /// Bytes of a slot: what the largest tile needs there.
    pub slot_bytes: u64,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Limits {
    /// The smallest budget: pinned weights, staging and the smallest ring, or everything if that is less.
    pub fn floor(&self) -> u64 {
        let ring = u64::from(self.slots) * self.slot_bytes;
        self.still().min(self.pinned + self.staging + ring)
    }

    /// The budget from which on nothing streams.
    pub fn still(&self) -> u64 {
        match self.still {
            0 => self.total,
            bytes => bytes,
        }
    }

    /// The bytes that shares are of.
    pub fn whole(&self) -> u64 {
        match self.plain {
            0 => self.total,
            bytes => bytes,
        }
    }

    /// The staging for messages.
    fn staged(&self) -> String {
        match self.staging {
            0 => String::new(),
            bytes => format!("{bytes} staging, "),
        }
    }
}

/// Why the applied budget is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is what was asked for.
    AsAsked,
    /// More was asked for than all weights take.
    ClampedToTotal {
        /// Bytes asked for.
        asked: u64,
    },
    /// The least was asked for.
    Minimum,
    /// What was free was asked for.
    Automatic {
        /// Bytes that were free.
        free: u64,
    },
    /// The device had no memory for more.
    Pressure {
        /// The budget in bytes that was in force or asked for.
        from: u64,
    },
}

/// A budget that cannot be met. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Less than the floor.
    #[error(
        "budget {requested} ({asked} bytes) is below the floor of {} bytes ({} pinned, {}{} ring \
         slots of {} bytes, {} in all weights)",
        limits.floor(), limits.pinned, limits.staged(), limits.slots, limits.slot_bytes, limits.total
    )]
    BelowFloor {
        /// What was asked for.
        requested: Request,
        /// The same in bytes.
        asked: u64,
        /// What bounds it.
        limits: Limits,
    },
}

/// A request resolved to bytes, `floor <= bytes <= total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The budget.
    pub bytes: u64,
    /// Why.
    pub why: Why,
}

impl Request {
    /// Resolves the request; `free` is what [`Request::Automatic`] may take.
    ///
    /// # Errors
    /// If it is below the floor.
    pub fn grant(self, free: u64, limits: &Limits) -> Result<Granted, BudgetError> {
        let minimum = Granted {
            bytes: limits.floor(),
            why: Why::Minimum,
        };
        let (asked, why) = match self {
            Request::Minimum | Request::Bytes(0) => return Ok(minimum),
            Request::Percent(p) if p.millionths == 0 => return Ok(minimum),
            Request::Full => (limits.total, Why::AsAsked),
            Request::Bytes(b) => (b, Why::AsAsked),
            Request::Percent(p) => (p.of(limits.whole()), Why::AsAsked),
            Request::Automatic => (free.min(limits.total), Why::Automatic { free }),
        };
        if asked < limits.floor() {
            return Err(BudgetError::BelowFloor {
                requested: self,
                asked,
                limits: *limits,
            });
        }
        if asked > limits.total {
            return Ok(Granted {
                bytes: limits.total,
                why: Why::ClampedToTotal { asked },
            });
        }
        Ok(Granted { bytes: asked, why })
    }
}

/// The reply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// What was asked for.
    pub requested: Request,
    /// The budget in bytes that is kept.
    pub applied: u64,
    /// The smallest budget.
    pub floor: u64,
    /// Bytes of all weights that the budget counts: the largest useful budget.
    pub total: u64,
    /// Bytes of weights that are always on the device.
    pub pinned: u64,
    /// Bytes of the places where what is packed waits to be unpacked; 0 where nothing is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub staging: u64,
    /// Bytes of streamable weights that stay on the device.
    pub resident: u64,
    /// Of these, the bytes of weights that stay packed though they have a plain form too; 0 where no
    /// weight has two.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packed: u64,
    /// Bytes of the ring that the rest streams through.
    pub ring: u64,
    /// Bytes that each pass over the first program streams, as they cross the link.
    pub streamed: u64,
    /// Why `applied` is what it is.
    pub why: Why,
}

impl Applied {
    /// Bytes in use: never more than `applied`.
    pub fn used(&self) -> u64 {
        self.pinned + self.staging + self.resident + self.ring
    }
}
