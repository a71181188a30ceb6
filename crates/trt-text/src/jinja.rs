//! Jinja as transformers sets it up.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as Fault, ErrorKind, Value};

use crate::Error;

/// Renders a template with variables.
pub(crate) fn render(source: &str, variables: &[(String, Value)]) -> Result<String, Error> {
    let mut jinja = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(failed)?;
    jinja.set_syntax(syntax);
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function(
        "raise_exception",
        |message: String| -> Result<String, Fault> {
            Err(Fault::new(ErrorKind::InvalidOperation, message))
        },
    );
    let values = Value::from_pairs(variables.iter().map(|(n, v)| (n.as_str(), v.clone())));
    jinja.render_str(source, values).map_err(failed)
}

fn failed(fault: Fault) -> Error {
    Error::Template {
        line: fault.line(),
        why: fault
            .detail()
            .map_or_else(|| fault.to_string(), str::to_string),
    }
}
