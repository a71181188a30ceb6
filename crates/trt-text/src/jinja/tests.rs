//! Tests (`x is iterable`) where Python's answer is another.

use minijinja::value::ValueKind;
use minijinja::{Environment, Value};

use super::containers::View;

pub(crate) fn add(jinja: &mut Environment<'_>) {
    jinja.add_test("callable", |v: &Value| {
        v.as_object().is_some() && (v.kind() == ValueKind::Plain || is_macro(v))
    });
    jinja.add_test("mapping", |v: &Value| {
        v.kind() == ValueKind::Map && !is_macro(v)
    });
    jinja.add_test("iterable", |v: &Value| {
        let kind = v.kind();
        !matches!(kind, ValueKind::None | ValueKind::Bool | ValueKind::Number)
            && (v.is_undefined() || (v.try_iter().is_ok() && !is_macro(v)))
    });
    jinja.add_test("sequence", |v: &Value| {
        let kind = v.kind();
        let has = matches!(
            kind,
            ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
        );
        (has || v.is_undefined()) && !is_macro(v) && v.downcast_object_ref::<View>().is_none()
    });
}

/// Macros have attributes like maps have, and are none.
fn is_macro(value: &Value) -> bool {
    value.kind() == ValueKind::Map
        && value
            .as_object()
            .is_some_and(|o| format!("{o}").starts_with("<macro "))
}
