//! Tests (`x is iterable`) where Python's answer is another.

use minijinja::value::ValueKind;
use minijinja::{Environment, Value};

use super::globals::Range;

pub(crate) fn add(jinja: &mut Environment<'_>) {
    jinja.add_test("callable", |v: &Value| {
        v.kind() == ValueKind::Plain && v.as_object().is_some()
    });
    jinja.add_test("iterable", |v: &Value| {
        let kind = v.kind();
        !matches!(kind, ValueKind::None | ValueKind::Bool | ValueKind::Number)
            && (v.is_undefined() || v.try_iter().is_ok())
    });
    jinja.add_test("sequence", |v: &Value| {
        let kind = v.kind();
        matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Map)
            || v.is_undefined()
            || v.downcast_object_ref::<Range>().is_some()
    });
}
