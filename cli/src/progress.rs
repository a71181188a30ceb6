//! Progress on standard error: bars on a terminal, one line per step elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A step of unknown length.
pub fn spinner(message: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    begin(bar, "{spinner} {msg} [{elapsed}]", message.into())
}

/// A step of a known number of bytes.
pub fn bytes(total: u64, message: impl Into<String>) -> ProgressBar {
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    begin(ProgressBar::new(total), template, message.into())
}

fn begin(bar: ProgressBar, template: &str, message: String) -> ProgressBar {
    if bar.is_hidden() {
        eprintln!("{message}");
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(message)
}
