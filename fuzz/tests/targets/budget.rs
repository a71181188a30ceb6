//! Budgets as people write them: `64MiB`, `25%`, `auto`.

use candle_trt::Request;
use candle_trt_fuzz::Target;

#[test]
fn a_budget_of_any_text_is_read_or_refused() {
    let corpus = [
        "64MiB",
        "25%",
        "12.5%",
        "auto",
        "full",
        "min",
        "1.5 GB",
        "0",
        "300000000",
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec());
    Target::new("budget", &corpus).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = text.parse::<Request>();
    });
}

mod the_harness {
    use super::*;
    use std::panic::catch_unwind;

    fn fails(parse: impl Fn(&[u8]) + std::panic::UnwindSafe) -> String {
        let corpus = [b"12345678".to_vec()];
        let target = Target {
            bytes: 1 << 20,
            ..Target::new("broken", &corpus)
        };
        let payload = catch_unwind(std::panic::AssertUnwindSafe(|| target.run(parse)));
        let payload = payload.expect_err("the target breaks its contract");
        *payload.downcast::<String>().expect("a message")
    }

    #[test]
    fn finds_panics_and_names_the_case() {
        let why = fails(|bytes| assert!(bytes.len() < 20, "long"));
        assert!(
            why.contains("it panicked: long") && why.contains("TRT_FUZZ_CASE="),
            "{why}"
        );
    }

    #[test]
    fn finds_memory_that_a_length_asked_for() {
        let why = fails(|bytes| {
            let word = bytes
                .first_chunk::<8>()
                .map_or(0, |b| u64::from_le_bytes(*b));
            drop(std::hint::black_box(vec![
                0u8;
                word.min(1 << 32) as usize
                    % (1 << 31)
            ]));
        });
        assert!(why.contains("and 1048576 are allowed"), "{why}");
    }
}
