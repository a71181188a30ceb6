//! Templates, rendered byte for byte as Jinja does it in transformers' environment (`references/make.py`).

use std::path::Path;

use serde_json::Value;
use trt_text::{ChatTemplate, Error, Files, Json, Tokenizer};

const EMPTY: &str =
    r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

fn template(source: &str) -> ChatTemplate {
    let files = Files {
        tokenizer: EMPTY.as_bytes(),
        ..Files::default()
    };
    ChatTemplate::new(source, &Tokenizer::from_files(&files).expect("a tokenizer"))
}

/// One case: what it is, its template, its variables in order, and what Jinja made of it.
struct Case {
    name: String,
    source: String,
    variables: Vec<(String, Json)>,
    text: Option<String>,
    refused: bool,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a reference");
    let all: Value = serde_json::from_str(&read("rendered.json")).expect("JSON");
    let ordered = Ordered(read("rendered.json"));
    let cases = all["cases"].as_array().expect("cases");
    let case = |case: &Value| {
        let name = case["name"].as_str().expect("a name").to_string();
        let (source, variables) = match name.split_once(' ') {
            None => (
                case["source"].as_str().expect("a source").to_string(),
                ordered.variables(&["variables"]),
            ),
            Some((file, conversation)) => (
                read(&format!("models/{file}")),
                ordered.variables(&["conversations", conversation]),
            ),
        };
        Case {
            name,
            source,
            variables,
            text: case["text"].as_str().map(str::to_string),
            refused: case["refused"] == true,
        }
    };
    cases.iter().map(case).collect()
}

/// The file again, read by what keeps the order of fields.
struct Ordered(String);

impl Ordered {
    fn variables(&self, path: &[&str]) -> Vec<(String, Json)> {
        let mut json = Json::parse(&self.0).expect("JSON");
        for name in path {
            let fields = json.fields().expect("an object");
            let field = fields.into_iter().find(|(n, _)| n == name);
            json = field.expect("a field").1;
        }
        json.fields().expect("an object")
    }
}

#[test]
fn every_template_is_rendered_as_jinja_renders_it() {
    let mut wrong = Vec::new();
    let mut cache: Vec<(String, Vec<(String, Json)>)> = Vec::new();
    let cases = cases();
    let count = cases.len();
    for case in cases {
        cache.clear();
        let got = template(&case.source).render_variables(&case.variables);
        let label = if case.name == "small" {
            &case.source
        } else {
            &case.name
        };
        match (got, &case.text) {
            (Ok(got), Some(want)) if got == *want && !case.refused => {}
            (Err(Error::Template { .. } | Error::TemplateLimit { .. }), None) => {}
            (Err(Error::Template { .. }), Some(_)) if case.refused => {}
            (got, want) => wrong.push(format!("{label:?}\n  want {want:?}\n  got  {got:?}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
