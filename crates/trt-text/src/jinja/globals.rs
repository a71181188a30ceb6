//! Functions of templates.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, State, Value};

use super::args::{Args, int};
use super::ops::bounded;
use super::{Made, charge, fault, print};

/// The longest range that the sandbox allows.
const LONGEST: i64 = 100_000;

pub(crate) fn add(jinja: &mut Environment<'_>) {
    jinja.remove_global("debug");
    jinja.add_function(
        "raise_exception",
        |state: &State, message: Value| -> Made<Value> {
            Err(fault(print::text(state, &message)?))
        },
    );
    jinja.add_function("strftime_now", |format: &str| strftime(format, now()));
    jinja.add_function("range", range);
    jinja.add_global("dict", Value::from_object(Dict));
    jinja.add_function("cycler", |items: Rest<Value>| -> Made<Value> {
        match items.is_empty() {
            true => Err(fault("cycler: at least one item has to be given")),
            false => Ok(Value::from_object(Cycler {
                items: items.to_vec(),
                at: AtomicUsize::new(0),
            })),
        }
    });
    jinja.add_function("joiner", |given: Rest<ValueOrKwargs>| -> Made<Value> {
        let args = Args::of("joiner", given, &["sep"])?;
        Ok(Value::from_object(Joiner {
            separator: args.get(0).cloned().unwrap_or_else(|| Value::from(", ")),
            used: AtomicUsize::new(0),
        }))
    });
}

/// Python's `range`.
#[derive(Debug)]
pub(crate) struct Range {
    start: i64,
    stop: i64,
    step: i64,
}

impl Range {
    fn len(&self) -> i64 {
        let (from, to, step) = match self.step > 0 {
            true => (self.start, self.stop, self.step),
            false => (self.stop, self.start, self.step.saturating_neg()),
        };
        let span = i128::from(to) - i128::from(from);
        let count = (span + i128::from(step) - 1).max(0) / i128::from(step);
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = int(key).ok()?;
        let at = if at < 0 { at + self.len() } else { at };
        (0..self.len())
            .contains(&at)
            .then(|| Value::from(self.start + at * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let (start, step) = (self.start, self.step);
        let items = (0..self.len()).map(move |i| Value::from(start + i * step));
        Enumerator::Values(items.collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        usize::try_from(self.len()).ok()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

fn range(state: &State, first: &Value, more: Rest<Value>) -> Made<Value> {
    let (start, stop, step) = match more.as_slice() {
        [] => (0, int(first)?, 1),
        [stop] => (int(first)?, int(stop)?, 1),
        [stop, step] => (int(first)?, int(stop)?, int(step)?),
        _ => return Err(fault("range takes at most 3 arguments")),
    };
    if step == 0 {
        return Err(fault("range: the step is 0"));
    }
    let range = Range { start, stop, step };
    if range.len() > LONGEST {
        return Err(fault(format!("range: more than {LONGEST} numbers")));
    }
    charge(state, 32 * range.len().max(0) as usize)?;
    Ok(Value::from_object(range))
}

/// Python's `dict`, as a function.
#[derive(Debug)]
struct Dict;

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Made<Value> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        for arg in args {
            match arg.kind() {
                ValueKind::Map => {
                    for key in arg.try_iter()? {
                        pairs.push((key.clone(), arg.get_item(&key)?));
                    }
                }
                ValueKind::Seq => {
                    for pair in arg.try_iter()? {
                        let pair: Vec<Value> = pair.try_iter()?.collect();
                        match pair.as_slice() {
                            [key, value] => pairs.push((key.clone(), value.clone())),
                            _ => return Err(fault("dict: an item is not a pair")),
                        }
                    }
                }
                kind => return Err(fault(format!("dict of a {kind}"))),
            }
        }
        charge(state, 64 * pairs.len())?;
        bounded(state, Value::from_pairs(pairs))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Made<Value> {
        if method != "fromkeys" {
            return Err(fault(format!("dict has no function {method}")));
        }
        let args = Args::bind("fromkeys", args, &["iterable", "value"])?;
        let Some(keys) = args.get(0) else {
            return Err(fault("fromkeys needs keys"));
        };
        let value = args.get(1).cloned().unwrap_or_else(|| Value::from(()));
        Ok(Value::from_pairs(
            keys.try_iter()?.map(|k| (k, value.clone())),
        ))
    }
}

/// Gives its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let current = self.items[self.at.load(Ordering::Relaxed) % self.items.len()].clone();
        (key.as_str() == Some("current")).then_some(current)
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Made<Value> {
        match method {
            "next" => {
                let at = self.at.fetch_add(1, Ordering::Relaxed);
                Ok(self.items[at % self.items.len()].clone())
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(fault(format!("a cycler has no method {method}"))),
        }
    }
}

/// Nothing at first, then its separator.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicUsize,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Made<Value> {
        Ok(match self.used.fetch_add(1, Ordering::Relaxed) {
            0 => Value::from(""),
            _ => self.separator.clone(),
        })
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}

const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time, in UTC, as C's `strftime` writes it.
fn strftime(format: &str, seconds: i64) -> Made<String> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[days.rem_euclid(7) as usize]);
    let of_year = days - first_day(year);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (flag, kind) = match chars.next() {
            Some('-') => (true, chars.next()),
            kind => (false, kind),
        };
        let two = |n: i64| {
            if flag {
                n.to_string()
            } else {
                format!("{n:02}")
            }
        };
        out += &match kind {
            Some('Y') => year.to_string(),
            Some('y') => two(year.rem_euclid(100)),
            Some('m') => two(month as i64),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('j') if !flag => format!("{:03}", of_year + 1),
            Some('B') => month_name.to_string(),
            Some('b' | 'h') => month_name[..3].to_string(),
            Some('A') => day_name.to_string(),
            Some('a') => day_name[..3].to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('R') => format!("{hour:02}:{minute:02}"),
            Some('D') => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
            Some('%') => "%".to_string(),
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(fault(format!("strftime_now: %{other} is not supported")));
            }
        };
    }
    Ok(out)
}

/// The day of the first of January, counted from 1970.
fn first_day(year: i64) -> i64 {
    let y = year - 1;
    365 * (year - 1970) + (y.div_euclid(4) - 492) - (y.div_euclid(100) - 19)
        + (y.div_euclid(400) - 4)
}

fn date(days: i64) -> (i64, usize, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while first_day(year + 1) <= days {
        year += 1;
    }
    let leap = first_day(year + 1) - first_day(year) == 366;
    let mut left = days - first_day(year);
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month + 1, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let all = "%Y-%m-%d %H:%M:%S %j %A %d %b %-d %B %y %I%p %%";
        let at = |seconds| strftime(all, seconds).unwrap();
        let first = "1970-01-01 00:00:00 001 Thursday 01 Jan 1 January 70 12AM %";
        assert_eq!(at(0), first);
        let leap = "2024-02-29 23:59:59 060 Thursday 29 Feb 29 February 24 11PM %";
        assert_eq!(at(1_709_251_199), leap);
        let last = "2100-12-31 12:00:00 365 Friday 31 Dec 31 December 00 12PM %";
        assert_eq!(at(4_133_937_600), last);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let error = strftime("%Q", 0).unwrap_err().to_string();
        assert!(error.contains("%Q is not supported"), "{error}");
    }
}
