//! What a GGUF file says of its model, as candle's model code reads it.

use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;
use trt_stream::{Kind, Metadata, Value as Read};

/// All values of a file, by name. One that no value of its type can be, such as a truth of 2, is left out.
pub(super) fn of(metadata: &Metadata) -> HashMap<String, Value> {
    let value =
        |(key, kind, read): (&str, Kind, Read<'_>)| Some((key.into(), of_kind(kind, read)?));
    metadata.typed().filter_map(value).collect()
}

/// A value in candle's type for it.
fn of_kind(kind: Kind, read: Read<'_>) -> Option<Value> {
    Some(match (kind, read) {
        (Kind::U8, Read::Unsigned(v)) => Value::U8(v.try_into().ok()?),
        (Kind::U16, Read::Unsigned(v)) => Value::U16(v.try_into().ok()?),
        (Kind::U32, Read::Unsigned(v)) => Value::U32(v.try_into().ok()?),
        (_, Read::Unsigned(v)) => Value::U64(v),
        (Kind::I8, Read::Signed(v)) => Value::I8(v.try_into().ok()?),
        (Kind::I16, Read::Signed(v)) => Value::I16(v.try_into().ok()?),
        (Kind::I32, Read::Signed(v)) => Value::I32(v.try_into().ok()?),
        (_, Read::Signed(v)) => Value::I64(v),
        (_, Read::F32(v)) => Value::F32(v),
        (_, Read::F64(v)) => Value::F64(v),
        (_, Read::Bool(0)) => Value::Bool(false),
        (_, Read::Bool(1)) => Value::Bool(true),
        (_, Read::Bool(_)) => return None,
        // Some writers end texts with a zero.
        (_, Read::Text(bytes)) => {
            let text = String::from_utf8_lossy(bytes);
            Value::String(text.trim_end_matches('\0').into())
        }
        (_, Read::Array(list)) => {
            let values = list.iter().map(|v| of_kind(list.kind(), v));
            Value::Array(values.collect::<Option<_>>()?)
        }
    })
}
