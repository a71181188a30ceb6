//! Arguments as Python binds them: by position, then by name.

use minijinja::Value;
use minijinja::value::{Kwargs, Rest, ValueOrKwargs};

use super::{Made, fault};

/// The arguments of a call, in the order of `names`.
#[derive(Debug)]
pub(crate) struct Args(Vec<Option<Value>>);

impl Args {
    /// Binds what a method was called with.
    pub fn bind(what: &str, given: &[Value], names: &[&str]) -> Made<Args> {
        let (given, named) = match given.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Some(Kwargs::try_from(last.clone())?)),
            _ => (given, None),
        };
        if given.len() > names.len() {
            let most = names.len();
            let why = format!("{what} takes at most {most} arguments, not {}", given.len());
            return Err(fault(why));
        }
        let mut bound: Vec<Option<Value>> = given.iter().cloned().map(Some).collect();
        bound.resize(names.len(), None);
        let Some(named) = named else {
            return Ok(Args(bound));
        };
        for name in named.args() {
            let at = names.iter().position(|n| *n == name);
            match at.and_then(|at| bound.get_mut(at)) {
                Some(place @ None) => *place = Some(named.peek(name)?),
                Some(Some(_)) => return Err(fault(format!("{what} got {name} twice"))),
                None => return Err(fault(format!("{what} takes no argument {name}"))),
            }
        }
        Ok(Args(bound))
    }

    /// Binds what a filter or function was called with.
    pub fn of(what: &str, given: Rest<ValueOrKwargs>, names: &[&str]) -> Made<Args> {
        let given: Vec<Value> = given.0.into_iter().map(ValueOrKwargs::into_value).collect();
        Args::bind(what, &given, names)
    }

    /// An argument that was given and is not none.
    pub fn some(&self, at: usize) -> Option<&Value> {
        self.0[at].as_ref().filter(|v| !v.is_none())
    }

    /// An argument that was given.
    pub fn get(&self, at: usize) -> Option<&Value> {
        self.0[at].as_ref()
    }

    pub fn flag(&self, at: usize) -> bool {
        self.0[at].as_ref().is_some_and(Value::is_true)
    }

    pub fn int(&self, at: usize) -> Made<Option<i64>> {
        self.some(at).map(int).transpose()
    }

    pub fn text(&self, at: usize) -> Made<Option<&str>> {
        let text = |v: &'_ Value| -> Made<()> {
            match v.as_str() {
                Some(_) => Ok(()),
                None => Err(fault(format!("{} is not a string", v.kind()))),
            }
        };
        self.some(at).map(text).transpose()?;
        Ok(self.some(at).and_then(|v| v.as_str()))
    }
}

/// An integer that is one in Python, too: no float, but a boolean.
pub(crate) fn int(value: &Value) -> Made<i64> {
    let is = value.is_integer() || value.kind() == minijinja::value::ValueKind::Bool;
    match is.then(|| i64::try_from(value.clone())) {
        Some(Ok(number)) => Ok(number),
        _ => Err(fault(format!(
            "{value} is not an integer that can be used here"
        ))),
    }
}
