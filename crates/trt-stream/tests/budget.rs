//! Requests: how they are written, and what they are granted.

use proptest::prelude::*;
use trt_stream::{BudgetError, Limits, Percent, Request, Why};

const LIMITS: Limits = Limits {
    total: 1000,
    still: 0,
    plain: 0,
    pinned: 100,
    staging: 0,
    slots: 2,
    slot_bytes: 50,
};

#[test]
fn requests_are_read() {
    let percent = |m| Request::Percent(Percent::from_millionths(m));
    for (text, request) in [
        ("0", Request::Bytes(0)),
        ("12345", Request::Bytes(12345)),
        ("64MiB", Request::Bytes(64 << 20)),
        ("64mib", Request::Bytes(64 << 20)),
        ("1.5GiB", Request::Bytes(3 << 29)),
        ("512KB", Request::Bytes(512_000)),
        ("2TB", Request::Bytes(2_000_000_000_000)),
        ("7B", Request::Bytes(7)),
        ("0.3KiB", Request::Bytes(307)),
        ("64M", Request::Bytes(64 << 20)),
        ("64MB", Request::Bytes(64_000_000)),
        ("1.5G", Request::Bytes(3 << 29)),
        ("300k", Request::Bytes(300 << 10)),
        ("64 MiB", Request::Bytes(64 << 20)),
        ("25 %", percent(250_000)),
        ("AUTO", Request::Automatic),
        ("Full", Request::Full),
        ("25%", percent(250_000)),
        ("12.5%", percent(125_000)),
        ("0.0001%", percent(1)),
        ("auto", Request::Automatic),
        ("full", Request::Full),
        ("min", Request::Minimum),
    ] {
        assert_eq!(text.parse::<Request>().unwrap(), request, "{text}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    for (text, reason) in [
        ("", "empty"),
        ("-1", "negative"),
        ("-64MiB", "negative"),
        ("+5MiB", "sign"),
        ("64  MiB", "blanks"),
        ("64 ", "blanks"),
        ("6 4MiB", "use bytes"),
        (" 64MiB", "blanks"),
        ("64MiBs", "use bytes"),
        ("lots", "use bytes"),
        ("MiB", "use bytes"),
        (".5GiB", "use bytes"),
        ("1.GiB", "after the point"),
        ("1.2.3GiB", "two points"),
        ("1.5", "whole"),
        ("99999999999999999999", "2^64"),
        ("17000000TiB", "2^64"),
        ("25%%", "use bytes"),
        ("1e9", "use bytes"),
        ("١MiB", "use bytes"),
    ] {
        let error = text.parse::<Request>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn requests_print_as_they_are_read(bytes: u64, millionths in 0u64..2_000_000) {
        let percent = Request::Percent(Percent::from_millionths(millionths));
        for request in [Request::Bytes(bytes), Request::Bytes(bytes << 10), percent] {
            prop_assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
            let json = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        }
    }
}

#[test]
fn zero_is_the_minimum() {
    for text in ["0", "min", "0%"] {
        let granted = text.parse::<Request>().unwrap().grant(0, &LIMITS).unwrap();
        assert_eq!((granted.bytes, granted.why), (200, Why::Minimum));
    }
}

#[test]
fn above_the_total_is_clamped_and_says_so() {
    let granted = Request::Bytes(5000).grant(0, &LIMITS).unwrap();
    assert_eq!(granted.bytes, 1000);
    assert_eq!(granted.why, Why::ClampedToTotal { asked: 5000 });
}

#[test]
fn below_the_floor_names_the_floor_and_its_parts() {
    let error = Request::Bytes(199).grant(0, &LIMITS).unwrap_err();
    let BudgetError::BelowFloor { asked, limits, .. } = &error;
    assert_eq!((*asked, limits.floor()), (199, 200));
    let text = error.to_string();
    for part in ["199", "200", "100 pinned", "2 ring slots of 50"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_percentage_is_exact() {
    let granted = "25%".parse::<Request>().unwrap().grant(0, &LIMITS).unwrap();
    assert_eq!(granted.bytes, 250);
    assert_eq!(
        "100%"
            .parse::<Request>()
            .unwrap()
            .grant(0, &LIMITS)
            .unwrap()
            .bytes,
        1000
    );
}

#[test]
fn automatic_takes_what_is_free() {
    let granted = |free| Request::Automatic.grant(free, &LIMITS);
    assert_eq!(granted(600).unwrap().bytes, 600);
    assert_eq!(granted(6000).unwrap().bytes, 1000);
    assert!(granted(10).is_err());
}

#[test]
fn the_floor_is_never_above_the_total() {
    let small = Limits {
        total: 120,
        ..LIMITS
    };
    assert_eq!(small.floor(), 120);
}
