//! What reading a model's text files and generating can fail with.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that must be there is not.
    #[error("{} has no {name}", folder.display())]
    Missing {
        /// The model's folder.
        folder: PathBuf,
        /// The file.
        name: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A pipe, a device or a folder in place of a file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// A file that is larger than anything of its kind.
    #[error("{} is larger than {most} bytes, the most that is read of such a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        most: u64,
    },
    /// A file that is not what its name says.
    #[error("{file}: {why}")]
    Malformed {
        /// The file, and where it is known the field.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A value of a GGUF file that is missing, or not what it should be.
    #[error("{why}")]
    Gguf {
        /// The file, the value and what is wrong.
        why: String,
    },
    /// Weights that are no GGUF file know nothing of a tokenizer.
    #[error("the weights are no GGUF file, so they hold no tokenizer")]
    NoGguf,
    /// The tokenizer refused a text or tokens.
    #[error("the tokenizer cannot {what}: {why}")]
    Tokenizer {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// Text without a token in it.
    #[error("the prompt has no tokens")]
    NoTokens,
    /// A prompt that leaves no room for an answer.
    #[error("the prompt has {tokens} tokens; a context of {max} leaves no room for an answer")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the model can remember.
        max: usize,
    },
    /// The model has no chat template, and its vocabulary none of the common forms.
    #[error(
        "the model has no chat template and its vocabulary none of the common forms: give it a raw prompt"
    )]
    NoTemplate,
    /// Templates with names, and none of the one that is needed.
    #[error("the model has chat templates named {names:?}, and none named {wanted:?}")]
    NoNamedTemplate {
        /// The name looked for.
        wanted: String,
        /// The names there are.
        names: Vec<String>,
    },
    /// The chat template has a fault, or refuses the conversation.
    #[error("the chat template fails{}: {why}", line.map(|l| format!(" in line {l}")).unwrap_or_default())]
    Template {
        /// The line, from 1.
        line: Option<usize>,
        /// What it says.
        why: String,
    },
    /// The chat template asks for more work or text than a prompt can need.
    #[error("the chat template asks for too much: {what}")]
    TemplateLimit {
        /// The bound that it met.
        what: String,
    },
    /// A parameter of sampling outside of its range.
    #[error("{name} cannot be {value}: {range}")]
    Sampling {
        /// The parameter.
        name: &'static str,
        /// What it was.
        value: String,
        /// What it can be.
        range: &'static str,
    },
    /// An empty stop string, which every text begins with.
    #[error("a stop string cannot be empty")]
    EmptyStop,
    /// Logits that are no numbers: nothing can be chosen by them.
    #[error("{count} of {of} logits at position {position} are not finite")]
    NotFinite {
        /// How many.
        count: usize,
        /// How many logits there are.
        of: usize,
        /// Tokens before the one to be chosen.
        position: usize,
    },
    /// No logits at all.
    #[error("the model gave no logits at position {position}")]
    NoLogits {
        /// Tokens before the one to be chosen.
        position: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Decoder(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn malformed(file: impl Into<String>, why: impl ToString) -> Self {
        Error::Malformed {
            file: file.into(),
            why: why.to_string(),
        }
    }
}
