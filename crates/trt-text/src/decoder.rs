//! What generating asks of an engine: logits for tokens, and to go back.
//!
//! Nothing else of an engine is known here, so a chat runs as well over a counting wrapper or over a stand-in of a test.

use trt_engine::Session;

/// A language model that remembers the tokens it was given.
pub trait Decoder {
    /// What its calls can fail with.
    type Error: Into<Box<dyn std::error::Error + Send + Sync>>;

    /// Runs tokens at the current position; the logits that follow the last one, one for each token of the vocabulary.
    ///
    /// # Errors
    ///
    /// Whatever the model's calls fail with; the position is then what it was.
    fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Self::Error>;

    /// Tokens that are remembered.
    fn position(&self) -> usize;

    /// Forgets all tokens from `position` on.
    fn truncate(&mut self, position: usize);

    /// Tokens that can be remembered, where that is bounded.
    fn max_context(&self) -> Option<usize>;
}

impl Decoder for Session {
    type Error = trt_engine::Error;

    fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Self::Error> {
        Session::prefill(self, tokens)
    }

    fn position(&self) -> usize {
        Session::position(self)
    }

    fn truncate(&mut self, position: usize) {
        Session::truncate(self, position);
    }

    fn max_context(&self) -> Option<usize> {
        Session::max_context(self)
    }
}

impl<D: Decoder> Decoder for &mut D {
    type Error = D::Error;

    fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Self::Error> {
        (**self).prefill(tokens)
    }

    fn position(&self) -> usize {
        (**self).position()
    }

    fn truncate(&mut self, position: usize) {
        (**self).truncate(position);
    }

    fn max_context(&self) -> Option<usize> {
        (**self).max_context()
    }
}
