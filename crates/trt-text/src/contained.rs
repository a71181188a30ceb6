//! Running code that panics on hostile input.
//!
//! `tokenizers` trusts its files: indices and regular expressions that do not fit make it panic. Such a panic is caught
//! and becomes an error with its message. So that nothing is printed, the first use puts a filter before the process's
//! panic hook: it passes on every panic except those of a thread that is inside [`contained`], so whatever hook there
//! was, or is set later, sees all others.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Marks the thread as inside, and restores what it was.
struct Inside(bool);

impl Inside {
    fn enter() -> Self {
        Inside(INSIDE.replace(true))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// What `work` returns, or the message of its panic.
///
/// What `work` changes is not looked at again by the callers in this crate after a panic: a tokenizer is either dropped
/// or read only.
pub(crate) fn contained<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    static FILTER: Once = Once::new();
    FILTER.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                return before(info);
            }
            let place = info
                .location()
                .map(|l| format!("{}:{}", l.file(), l.line()));
            PLACE.with(|p| *p.borrow_mut() = place);
        }));
    });
    let caught = {
        let _inside = Inside::enter();
        catch_unwind(AssertUnwindSafe(work))
    };
    caught.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = text.unwrap_or("no message").to_string();
        // A payload whose own destructor panics must not bring the panic back.
        std::mem::forget(payload);
        match PLACE.take() {
            Some(place) => {
                let file = place.rsplit(['/', '\\']).next().unwrap_or_default();
                format!("it panicked ({file}): {message}")
            }
            None => format!("it panicked: {message}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_the_thread_goes_on() {
        let why = contained(|| {
            if std::hint::black_box(true) {
                panic!("no token {}", 7)
            }
        });
        assert!(why.unwrap_err().ends_with("no token 7"));
        assert_eq!(contained(|| 3), Ok(3));
        assert!(!INSIDE.get());
    }
}
