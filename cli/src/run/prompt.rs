//! What there is to answer: a flag, a file, standard input, or whoever sits at a terminal.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_trt::stream::read_regular;

use super::RunArgs;

/// The prompt where there is none.
const DEFAULT: &str = "What is the capital of France, and what is it known for?";

/// The longest prompt, in bytes; no model holds so many tokens.
const LONGEST: u64 = 64 << 20;

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// What a user says, turn after turn.
    Chat,
}

/// The prompt that the flags name. Without one it is what comes on standard input, and where nothing comes a default;
/// on a terminal it is a chat.
pub fn find(args: &RunArgs) -> Result<Prompt> {
    let stdin = std::io::stdin();
    let text = match (&args.prompt, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) if file == Path::new("-") => read(stdin.lock(), "standard input")?,
        (None, Some(file)) => {
            let bytes = read_regular(file, LONGEST);
            let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
            utf8(bytes, &file.display().to_string())?
        }
        (None, None) if stdin.is_terminal() => match args.raw || args.json {
            true => DEFAULT.to_string(),
            false => return Ok(Prompt::Chat),
        },
        (None, None) => match read(stdin.lock(), "standard input")? {
            text if text.is_empty() => DEFAULT.to_string(),
            text => text,
        },
    };
    Ok(Prompt::Text(text))
}

/// All of it but the line end that programs put behind the last line.
fn read(from: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(LONGEST + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > LONGEST {
        bail!("{name} has more than {LONGEST} bytes, the most that a prompt can have");
    }
    let mut text = utf8(bytes, name)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_loses_one_line_end_and_nothing_else() {
        for (given, want) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
            ("", ""),
        ] {
            assert_eq!(read(given.as_bytes(), "it").unwrap(), want);
        }
    }

    #[test]
    fn what_is_no_text_or_has_no_end_is_refused() {
        assert!(
            read(&b"\xff"[..], "it")
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
        assert!(
            read(std::io::repeat(b'a'), "it")
                .unwrap_err()
                .to_string()
                .contains("more than")
        );
    }
}
