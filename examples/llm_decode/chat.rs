//! Prompts as the model was trained to read them.
//!
//! The model's own template (Jinja, in `chat_template.jinja` or `tokenizer_config.json`) is used where there is one.
//! Otherwise the tokens in the vocabulary say which of the common forms it knows.

use std::path::Path;

use anyhow::{Context, Result, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;
use tokenizers::Tokenizer;

/// A form of conversation: the token that gives it away, and its template. The line ends at the end of a template
/// are inside a Jinja string, because Jinja drops the last one of a template's own.
const COMMON: [(&str, &str); 3] = [
    (
        "<|im_start|>",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {{ '<|im_start|>assistant\n' }}",
    ),
    (
        "<|start_header_id|>",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
         {{ m.content }}<|eot_id|>{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    ),
    (
        "[INST]",
        "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}",
    ),
];

/// Tokens that end the assistant's turn in one form or another.
const TURN_ENDS: [&str; 3] = ["<|im_end|>", "<|eot_id|>", "<|end_of_turn|>"];

/// A model's way to write a conversation.
#[derive(Debug)]
pub struct Template {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl Template {
    /// The template of the model in `folder`.
    pub fn of(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let settings = folder.join("tokenizer_config.json");
        let settings: Value = match std::fs::read(&settings) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not JSON", settings.display()))?,
            Err(_) => Value::Null,
        };
        let own = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        let source = match own.or_else(|| template_in(&settings["chat_template"])) {
            Some(source) => source,
            None => common(|token| tokenizer.token_to_id(token).is_some())?.to_string(),
        };
        let token = |key: &str| {
            let value = &settings[key];
            value
                .as_str()
                .or(value["content"].as_str())
                .unwrap_or_default()
                .to_string()
        };
        Ok(Self {
            source,
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
        })
    }

    /// One user message, up to where the assistant begins.
    pub fn render(&self, prompt: &str) -> Result<String> {
        let mut jinja = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?;
        jinja.set_syntax(syntax);
        jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        jinja.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        let messages = [context! { role => "user", content => prompt }];
        let values = context! {
            messages, add_generation_prompt => true, bos_token => &self.bos_token, eos_token => &self.eos_token,
        };
        jinja
            .render_str(&self.source, values)
            .context("the model's chat template fails (--raw does without it)")
    }
}

/// Tokens of the vocabulary that end a turn.
pub fn turn_ends(tokenizer: &Tokenizer) -> impl Iterator<Item = u32> + '_ {
    TURN_ENDS
        .iter()
        .filter_map(|token| tokenizer.token_to_id(token))
}

/// `chat_template` is one template, or a list of named ones.
fn template_in(setting: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|t| t["name"] == "default")?;
        Some(default["template"].as_str()?.to_string())
    };
    match setting {
        Value::String(source) => Some(source.clone()),
        Value::Array(list) => named(list),
        _ => None,
    }
}

fn common(has: impl Fn(&str) -> bool) -> Result<&'static str> {
    match COMMON.iter().find(|(token, _)| has(token)) {
        Some((_, template)) => Ok(template),
        None => bail!(
            "the model has no chat template and its vocabulary none of the common forms; use --raw"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Template {
        Template {
            source: source.into(),
            bos_token: "<s>".into(),
            eos_token: "</s>".into(),
        }
    }

    #[test]
    fn chatml_opens_the_assistants_turn() -> Result<()> {
        let source = common(|token| token == "<|im_start|>")?;
        let want = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(template(source).render("Hi")?, want);
        Ok(())
    }

    #[test]
    fn llama3_and_mistral_begin_with_the_first_token() -> Result<()> {
        let llama = template(common(|token| token == "<|start_header_id|>")?).render("Hi")?;
        let user = "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>";
        let assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(llama, format!("{user}{assistant}"));
        let mistral = template(common(|token| token == "[INST]")?).render("Hi")?;
        assert_eq!(mistral, "<s>[INST] Hi [/INST]");
        Ok(())
    }

    #[test]
    fn templates_may_use_pythons_string_methods() -> Result<()> {
        let source = "{% if messages[0]['role'] != 'system' %}{{ messages[0]['content'].strip() + eos_token }}{% endif %}";
        assert_eq!(template(source).render("  Hi ")?, "Hi</s>");
        Ok(())
    }

    #[test]
    fn a_list_of_templates_has_a_default() {
        let list = serde_json::json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(template_in(&list).as_deref(), Some("d"));
        assert_eq!(template_in(&Value::Null), None);
    }

    #[test]
    fn no_template_and_no_known_token_says_what_to_do() {
        assert!(common(|_| false).unwrap_err().to_string().contains("--raw"));
    }
}
