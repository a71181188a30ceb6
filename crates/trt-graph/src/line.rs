//! Lines of model code, for errors.
//!
//! Every function of the mirror is called by a line of model code, perhaps by way of others of the mirror. All of
//! them pass their caller on (`#[track_caller]`), and what makes or looks at a tensor notes the line, if it is
//! outside of the mirror. So the last line that is noted is the one that runs, closures of the mirror and layers
//! behind `dyn` included, which cannot pass a caller on.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;

/// A line of model code, where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Option<&'static Location<'static>>);

/// ` at src/model.rs:12:5`, or nothing.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, " at {at}"),
            None => Ok(()),
        }
    }
}

thread_local! {
    static LAST: Cell<Line> = const { Cell::new(Line(None)) };
}

/// The folder of the mirror, as the compiler names this file's.
fn folder() -> &'static str {
    const FILE: &str = file!();
    const END: &str = "line.rs";
    &FILE[..FILE.len() - END.len()]
}

fn is_mirrors(file: &str) -> bool {
    // Code that is generic is compiled elsewhere too, where the same file is named in full.
    let at = file.find(folder()).map(|at| at + folder().len());
    at.is_some_and(|at| file[at..].starts_with("mirror"))
}

/// Notes the line that calls, if it is model code's, and returns the last one that was noted.
#[track_caller]
pub(crate) fn here() -> Line {
    let at = Location::caller();
    let last = LAST.get();
    let same = last.0.is_some_and(|last| std::ptr::eq(last, at));
    if same || is_mirrors(at.file()) {
        return last;
    }
    LAST.set(Line(Some(at)));
    LAST.get()
}

/// The line that ran last.
pub(crate) fn last() -> Line {
    LAST.get()
}

/// Forgets it: other code of the model runs next.
pub(crate) fn forget() {
    LAST.set(Line(None));
}
