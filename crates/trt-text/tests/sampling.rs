//! Which tokens are chosen.

use trt_text::{Error, Sampler, Sampling};

/// Tokens with the probabilities 0.5, 0.25, 0.15 and 0.1 at a temperature of 1.
fn logits() -> Vec<f32> {
    [0.15f32, 0.5, 0.1, 0.25].map(f32::ln).to_vec()
}

fn drawn(sampling: Sampling) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut counts = vec![0; 4];
    for _ in 0..20_000 {
        counts[sampler.sample(&mut logits(), &[]).unwrap() as usize] += 1;
    }
    counts
}

fn hot(change: impl FnOnce(&mut Sampling)) -> Sampling {
    let mut sampling = Sampling {
        temperature: 1.0,
        seed: 7,
        ..Sampling::default()
    };
    change(&mut sampling);
    sampling
}

#[test]
fn without_a_temperature_the_first_of_the_most_likely_is_taken() {
    let mut sampler = Sampler::new(Sampling::default()).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 3.0, -1.0], &[]).unwrap(), 1);
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let counts = drawn(hot(|_| {}));
    for (count, p) in counts.iter().zip([0.15, 0.5, 0.1, 0.25]) {
        let off = (*count as f64 / 20_000.0 - p).abs();
        assert!(off < 0.015, "{counts:?}");
    }
    let colder = drawn(hot(|s| s.temperature = 0.5));
    assert!((colder[1] as f64 / 20_000.0 - 0.25 / 0.345).abs() < 0.015);
}

#[test]
fn top_k_top_p_and_min_p_leave_out_the_unlikely() {
    let alive = |s| drawn(s).iter().map(|c| *c > 0).collect::<Vec<_>>();
    assert_eq!(
        alive(hot(|s| s.top_k = Some(2))),
        [false, true, false, true]
    );
    assert_eq!(
        alive(hot(|s| s.top_p = Some(0.76))),
        [true, true, false, true]
    );
    assert_eq!(
        alive(hot(|s| s.top_p = Some(0.74))),
        [false, true, false, true]
    );
    assert_eq!(
        alive(hot(|s| s.min_p = Some(0.29))),
        [true, true, false, true]
    );
    assert_eq!(
        alive(hot(|s| s.min_p = Some(1.0))),
        [false, true, false, false]
    );
    // Of the two that are left, the first alone has 2/3.
    let both = hot(|s| (s.top_k, s.top_p) = (Some(2), Some(0.6)));
    assert_eq!(alive(both), [false, true, false, false]);
}

#[test]
fn what_was_there_is_repelled_once_whatever_its_sign() {
    let mut sampler = Sampler::new(Sampling {
        repetition_penalty: Some(2.0),
        ..Sampling::default()
    })
    .unwrap();
    let mut logits = [3.0, 2.0, -1.0];
    assert_eq!(sampler.sample(&mut logits, &[0, 0, 2, 9]).unwrap(), 1);
    assert_eq!(logits, [1.5, 2.0, -2.0]);
}

#[test]
fn a_seed_draws_the_same_tokens_everywhere() {
    let mut sampler = Sampler::new(hot(|s| s.seed = 42)).unwrap();
    let tokens: Vec<u32> = (0..12)
        .map(|_| sampler.sample(&mut logits(), &[]).unwrap())
        .collect();
    assert_eq!(tokens, [3, 1, 3, 0, 1, 1, 3, 1, 2, 1, 1, 3]);
}

#[test]
fn logits_that_are_no_numbers_are_an_error_that_counts_them() {
    let mut sampler = Sampler::new(Sampling::default()).unwrap();
    let mut logits = [0.0, f32::NAN, f32::INFINITY, 1.0];
    let error = sampler.sample(&mut logits, &[5, 6]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 of 4 logits at position 2 are not finite"
    );
    assert!(matches!(
        sampler.sample(&mut [], &[]),
        Err(Error::NoLogits { position: 0 })
    ));
}

#[test]
fn parameters_outside_of_their_range_are_named() {
    type Change = fn(&mut Sampling);
    let wrong: [(Change, &str); 8] = [
        (|s| s.temperature = -1.0, "temperature cannot be -1"),
        (|s| s.temperature = f64::NAN, "temperature cannot be NaN"),
        (
            |s| s.temperature = f64::INFINITY,
            "temperature cannot be inf",
        ),
        (|s| s.top_k = Some(0), "top_k cannot be 0"),
        (|s| s.top_p = Some(0.0), "top_p cannot be 0"),
        (|s| s.top_p = Some(1.5), "top_p cannot be 1.5"),
        (|s| s.min_p = Some(-0.1), "min_p cannot be -0.1"),
        (
            |s| s.repetition_penalty = Some(0.0),
            "repetition_penalty cannot be 0",
        ),
    ];
    for (change, start) in wrong {
        let error = Sampler::new(hot(change)).unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn the_coldest_and_the_hottest_draw_something() {
    for temperature in [f64::MIN_POSITIVE, 1e300] {
        let mut sampler = Sampler::new(hot(|s| {
            s.temperature = temperature;
            s.top_p = Some(1e-9);
            s.min_p = Some(1.0);
        }))
        .unwrap();
        let token = sampler.sample(&mut [f32::MIN, 0.0, f32::MAX], &[]);
        assert!(token.unwrap() < 3);
    }
}
