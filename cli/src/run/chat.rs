//! A chat on a terminal: each line is a turn, and what was said before stays in the model's cache.

use std::io::{self, BufRead, Write};

use anyhow::Result;
use trt_text::{Chat, ChatTemplate, Decoder as _, Error, Message, Settings};

use super::{Model, RunArgs};

/// Positions of a chat where the model holds more: states are held for all of them.
const POSITIONS: usize = 4096;

/// The longest piece of a turn that runs in one call.
const PIECE: usize = 512;

/// Talks until the input ends or `/exit`.
pub fn talk(args: &RunArgs, model: &Model, template: &ChatTemplate) -> Result<()> {
    let positions = model.config.max_position_embeddings.min(POSITIONS);
    let decoder = model.compile(args, PIECE.min(positions / 2), positions)?;
    let positions = decoder.max_context().unwrap_or(positions);
    let chat = Chat::new(decoder, &model.tokenizer, template);
    let settings = super::settings(args, args.max_tokens.filter(|n| *n != usize::MAX));
    eprintln!(
        "A chat of at most {positions} tokens. /clear begins another, /exit or the end of the input ends it."
    );
    turns(
        chat,
        system(args),
        &settings,
        io::stdin().lock(),
        io::stdout().lock(),
    )
}

fn system(args: &RunArgs) -> Option<Message> {
    super::system(args).next()
}

/// Reads turns from `input` and writes answers to `output`.
fn turns<D: trt_text::Decoder>(
    mut chat: Chat<'_, D>,
    system: Option<Message>,
    settings: &Settings,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<()> {
    let mut lines = input.lines();
    if let Some(system) = &system {
        chat.push(system.clone());
    }
    loop {
        eprint!("> ");
        let Some(line) = lines.next().transpose()? else {
            eprintln!();
            return Ok(());
        };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/clear" => {
                chat.truncate(system.iter().count());
                continue;
            }
            _ => {}
        }
        let before = chat.messages().len();
        chat.push(Message::user(&line));
        match answer(&mut chat, settings, &mut output) {
            Ok(answer) => chat.push(Message::assistant(&answer)),
            // The chat goes on without what it has no room for.
            Err(Failed::Text(error @ (Error::PromptTooLong { .. } | Error::Template { .. }))) => {
                eprintln!("{error}; /clear begins another chat");
                chat.truncate(before);
            }
            Err(Failed::Text(error)) => return Err(error.into()),
            Err(Failed::Output(error)) => return Err(error.into()),
        }
    }
}

enum Failed {
    Text(Error),
    Output(io::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Text(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Output(error)
    }
}

fn answer<D: trt_text::Decoder>(
    chat: &mut Chat<'_, D>,
    settings: &Settings,
    output: &mut impl Write,
) -> Result<String, Failed> {
    let mut all = String::new();
    let mut generation = chat.answer(settings)?;
    for piece in &mut generation {
        let text = piece?.text;
        output.write_all(text.as_bytes())?;
        output.flush()?;
        all += &text;
    }
    writeln!(output)?;
    if matches!(generation.finish(), Some(trt_text::Finish::ContextFull)) {
        eprintln!("note: the chat is as long as it can be; /clear begins another");
    }
    Ok(all)
}
