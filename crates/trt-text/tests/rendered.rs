//! Templates, rendered byte for byte as Jinja does it in transformers' environment (`references/make.py`).

use std::path::Path;

use serde_json::Value;
use trt_text::{ChatTemplate, Error, Files, Json, Tokenizer};

const EMPTY: &str =
    r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

fn tokenizer() -> Tokenizer {
    let files = Files {
        tokenizer: EMPTY.as_bytes(),
        ..Files::default()
    };
    Tokenizer::from_files(&files).expect("a tokenizer")
}

/// One case: what it is, its template, its variables in order, and what Jinja made of it.
struct Case {
    name: String,
    source: String,
    variables: Vec<(String, Json)>,
    text: Option<String>,
    kind: String,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a reference");
    let all: Value = serde_json::from_str(&read("rendered.json")).expect("JSON");
    let ordered = Ordered(Json::parse(&read("rendered.json")).expect("JSON"));
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
            kind: case["kind"].as_str().expect("a kind").to_string(),
        }
    };
    cases.iter().map(case).collect()
}

/// The file again, read by what keeps the order of fields.
struct Ordered(Json);

impl Ordered {
    fn variables(&self, path: &[&str]) -> Vec<(String, Json)> {
        let mut json = self.0.clone();
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
    let (mut wrong, tokenizer) = (Vec::new(), tokenizer());
    let cases = cases();
    for case in &cases {
        let got = ChatTemplate::new(&case.source, &tokenizer).render_variables(&case.variables);
        let small = case.name == "small";
        let label = if small { &case.source } else { &case.name };
        let failed = matches!(
            got,
            Err(Error::Template { .. } | Error::TemplateLimit { .. })
        );
        let fine = match (case.kind.as_str(), &got, &case.text) {
            ("equal", Ok(got), Some(want)) => got == want,
            ("equal", Err(_), None) => failed,
            ("refused", Err(_), Some(_)) => failed,
            ("lenient", Ok(_), None) => true,
            ("different", Ok(got), Some(want)) => got != want,
            _ => false,
        };
        if !fine {
            let (kind, want) = (&case.kind, &case.text);
            wrong.push(format!("{kind} {label:?}\n  want {want:?}\n  got  {got:?}"));
        }
    }
    let (count, wrong_count) = (cases.len(), wrong.len());
    assert!(
        wrong.is_empty(),
        "{wrong_count} of {count}:\n{}",
        wrong.join("\n")
    );
}
