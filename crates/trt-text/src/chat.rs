//! A conversation of several turns over one decoder.

use crate::{
    ChatTemplate, Context, Conversation, Decoder, Error, Generation, Message, Settings, Tokenizer,
};

/// A conversation: its messages, and a context that remembers their tokens, so that a turn runs only what is new.
#[derive(Debug)]
pub struct Chat<'a, D> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    context: Context<D>,
    messages: Vec<Message>,
}

impl<'a, D: Decoder> Chat<'a, D> {
    /// A conversation without a message.
    pub fn new(decoder: D, tokenizer: &'a Tokenizer, template: &'a ChatTemplate) -> Self {
        Chat {
            tokenizer,
            template,
            context: Context::new(decoder),
            messages: Vec::new(),
        }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The context that remembers the conversation.
    pub fn context(&self) -> &Context<D> {
        &self.context
    }

    /// Adds a message. What the assistant said is added by the caller too, so that it can be cut or left out.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Forgets all messages from `count` on; what is remembered of them is gone with the next answer.
    pub fn truncate(&mut self, count: usize) {
        self.messages.truncate(count);
    }

    /// The tokens of the conversation, up to where the assistant begins.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn prompt(&self) -> Result<Vec<u32>, Error> {
        let text = self.template.render(&Conversation::new(&self.messages))?;
        self.tokenizer.encode(&text, false)
    }

    /// Begins the assistant's answer to the messages so far.
    ///
    /// # Errors
    ///
    /// Those of [`prompt`](Self::prompt) and [`Context::generate`].
    pub fn answer(&mut self, settings: &Settings) -> Result<Generation<'_, D>, Error> {
        let prompt = self.prompt()?;
        self.context.generate(self.tokenizer, &prompt, settings)
    }
}
