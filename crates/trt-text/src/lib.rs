//! What a chat needs beside an engine: prompts in, text out.
//!
//! - [`Tokenizer`]: text to tokens and back, set up from the files of a model's folder or from a GGUF file ([`GgufFiles`]).
//! - [`ChatTemplate`]: a conversation as the model was trained to read it.
//! - [`Sampler`]: the next token, by its logits; [`Sampling`] says how.
//! - [`Context`]: a [`Decoder`] with the tokens that it remembers; [`Context::generate`] gives a [`Generation`], an iterator of
//!   [`Piece`]s of text that ends with a [`Finish`].
//! - [`Chat`]: all of these for several turns, each of which runs only what is new.
//!
//! A chat on a terminal:
//!
//! ```no_run
//! use std::io::{Write, stdin, stdout};
//! use trt_text::{Chat, ChatTemplate, Message, Sampling, Settings, Tokenizer};
//!
//! fn talk(session: trt_engine::Session, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let tokenizer = Tokenizer::open(folder)?;
//!     let template = ChatTemplate::open(folder, &tokenizer)?;
//!     let mut chat = Chat::new(session, &tokenizer, &template);
//!     let sampling = Sampling { temperature: 0.7, top_p: Some(0.9), ..Sampling::default() };
//!     let settings = Settings { max_tokens: Some(512), sampling, ..Settings::default() };
//!     for line in stdin().lines() {
//!         chat.push(Message::user(&line?));
//!         let mut answer = String::new();
//!         for piece in chat.answer(&settings)? {
//!             let text = piece?.text;
//!             print!("{text}");
//!             stdout().flush()?;
//!             answer += &text;
//!         }
//!         chat.push(Message::assistant(&answer));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Nothing of an engine is known here but what [`Decoder`] says; it is implemented for `trt_engine::Session`. The files of a
//! folder are not trusted: they are regular files of bounded size, and whatever is in them ends in a value or an [`Error`].
#![forbid(unsafe_code)]

mod bounds;
mod chat;
mod contained;
mod decoder;
mod error;
mod files;
mod generation;
mod gguf;
mod jinja;
mod json;
mod message;
mod sampler;
mod special;
mod stop;
mod stream;
mod template;
mod tokenizer;

pub use chat::Chat;
pub use decoder::Decoder;
pub use error::Error;
pub use generation::{Cancel, Context, Ends, Finish, Generation, Piece, Settings};
pub use gguf::GgufFiles;
pub use json::Json;
pub use message::Message;
pub use sampler::{Sampler, Sampling};
pub use special::Files;
pub use stop::StopStrings;
pub use stream::TextStream;
pub use template::{ChatTemplate, Conversation};
pub use tokenizer::Tokenizer;
