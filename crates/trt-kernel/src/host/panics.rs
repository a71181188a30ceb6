//! Panics that end where they happen.
//!
//! Threads here serve others, who wait for them: none of them may unwind. The invariant of
//! [`contain`]: it returns, whatever the closure does, and what the panic carried is gone by then,
//! although dropping that may panic in its turn.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`; of a panic, what it said. `f` must leave what it shares with others in a state that
/// they can use, or tell them not to.
///
/// # Errors
/// What the panic said, if `f` panics.
pub fn contain<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = said(&*panic);
        if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // What panics when it is dropped may carry another such value: it stays for ever.
            std::mem::forget(next);
        }
        text
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(contain(|| 3), Ok(3));
        assert_eq!(contain(|| panic!("a {}", 1)), Err::<(), _>("a 1".into()));
        assert_eq!(contain(|| panic!("plain")), Err::<(), _>("plain".into()));
    }

    #[test]
    fn what_a_panic_carries_may_panic_when_it_is_dropped() {
        struct Bomb(u32);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if self.0 > 0 {
                    panic_any(Bomb(self.0 - 1));
                }
            }
        }
        for depth in [0, 1, 5] {
            let said = contain(|| panic_any(Bomb(depth))).unwrap_err();
            assert!(said.contains("without a message"), "{said}");
        }
    }
}
