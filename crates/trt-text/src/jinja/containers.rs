//! Methods of Python's lists and dicts. What changes a value is refused, as the sandbox refuses it.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error as Fault, ErrorKind, State, Value};

use super::args::Args;
use super::methods::none;
use super::ops::same;
use super::{Made, charge, fault};

/// What `keys`, `values` and `items` give: it can be walked and counted, and has no places.
#[derive(Debug)]
pub(crate) struct View {
    pub name: &'static str,
    items: Vec<Value>,
}

impl View {
    fn of(name: &'static str, items: Vec<Value>) -> Value {
        Value::from_object(View { name, items })
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

const CHANGES: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

fn unknown(method: &str) -> Fault {
    match CHANGES.contains(&method) {
        true => fault(format!(
            "{method} would change a value, which a template must not"
        )),
        false => Fault::from(ErrorKind::UnknownMethod),
    }
}

pub(crate) fn dict(value: &Value, method: &str, args: &[Value]) -> Made<Value> {
    let keys = || -> Made<Vec<Value>> { Ok(value.try_iter()?.collect()) };
    match method {
        "keys" => {
            none(method, args)?;
            Ok(View::of("dict_keys", keys()?))
        }
        "values" => {
            none(method, args)?;
            let values = keys()?.into_iter().map(|k| value.get_item(&k));
            Ok(View::of("dict_values", values.collect::<Made<_>>()?))
        }
        "items" => {
            none(method, args)?;
            let pair = |key: &Value| -> Made<Value> {
                let pair = vec![key.clone(), value.get_item(key)?];
                Ok(Value::from(Tuple::from(pair)))
            };
            let pairs = keys()?.iter().map(pair).collect::<Made<_>>()?;
            Ok(View::of("dict_items", pairs))
        }
        "get" => {
            let args = Args::bind(method, args, &["key", "default"])?;
            let key = args.get(0).ok_or_else(|| fault("get needs a key"))?;
            let found = value.get_item(key)?;
            let default = || args.get(1).cloned().unwrap_or_else(|| Value::from(()));
            Ok(if found.is_undefined() {
                default()
            } else {
                found
            })
        }
        "copy" => {
            none(method, args)?;
            Ok(value.clone())
        }
        _ => Err(unknown(method)),
    }
}

pub(crate) fn list(state: &State, value: &Value, method: &str, args: &[Value]) -> Made<Value> {
    charge(state, 8 * value.len().unwrap_or(0))?;
    match method {
        "index" | "count" => {
            let args = Args::bind(method, args, &["value"])?;
            let wanted = args.get(0).ok_or_else(|| fault("it needs a value"))?;
            let mut places = Vec::new();
            for (at, item) in value.try_iter()?.enumerate() {
                if same(state, &item, wanted, 0)? {
                    places.push(at);
                }
            }
            match (method, places.first()) {
                ("count", _) => Ok(Value::from(places.len())),
                (_, Some(at)) => Ok(Value::from(*at)),
                _ => Err(fault("index: the value is not in the list")),
            }
        }
        "copy" if !value.is_tuple() => {
            none(method, args)?;
            Ok(value.clone())
        }
        _ => Err(unknown(method)),
    }
}
