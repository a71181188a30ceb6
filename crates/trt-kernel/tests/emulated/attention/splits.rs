//! Attention whose keys are split between blocks, in one launch.

use super::*;

/// Runs the kernel of a case with runtime sizes; the bytes of the result, and atomics.
fn ran(case: &Case, target: Target, seed: u64) -> (Vec<u8>, u64) {
    let kernel = case.kernel(true, case.scaled());
    let emitted = ptx::emit(&kernel, target).unwrap();
    let env = Env::new(&[case.queries as i64, case.keys as i64]);
    let mut args = case.args();
    poison(&kernel, &mut args);
    let done = launch(&kernel, &emitted, &env, &[], seed, &mut args);
    (args[3].bytes.clone(), done.atomics)
}

#[test]
fn decode_is_one_launch() {
    for dtype in [DType::F32, DType::BF16] {
        let case = Case {
            dtype,
            ..Case::default()
        };
        for target in Target::ALL {
            let kernel = case.kernel(false, case.scaled());
            let launches = ptx::emit(&kernel, target).unwrap().launches;
            assert_eq!(launches.len(), 1, "{launches:?}");
        }
    }
}

#[test]
fn which_block_is_the_last_changes_no_bit() {
    for (dtype, target) in [(DType::F32, Target::Sm75), (DType::BF16, Target::Sm90)] {
        let case = Case {
            keys: 1000,
            capacity: 1024,
            dtype,
            ..Case::default()
        };
        let first = ran(&case, target, 0);
        // Each of two key heads has sixteen splits with keys.
        assert_eq!(first.1, 2 * 16, "{dtype}");
        for seed in 1..6 {
            assert!(ran(&case, target, seed) == first, "{dtype} {seed}");
        }
    }
}

#[test]
fn few_keys_are_one_block_s_and_nothing_is_counted() {
    for (dtype, target, few) in [
        (DType::F32, Target::Sm80, 64),
        (DType::BF16, Target::Sm80, 128),
    ] {
        let case = |keys| Case {
            keys,
            capacity: 256,
            dtype,
            ..Case::default()
        };
        assert_eq!(ran(&case(few), target, 1).1, 0, "{dtype}");
        let tiles = (few as u64 + 1).div_ceil(64);
        assert_eq!(ran(&case(few + 1), target, 1).1, 2 * tiles, "{dtype}");
    }
}

#[test]
fn many_heads_need_no_splits() {
    for dtype in [DType::F32, DType::BF16] {
        let case = Case {
            heads: 150,
            kv_heads: 150,
            dim: 16,
            value: 16,
            dtype,
            ..Case::default()
        };
        let kernel = case.kernel(false, case.scaled());
        let emitted = ptx::emit(&kernel, Target::Sm80).unwrap();
        assert!(emitted.scratch.is(0), "{}", emitted.scratch);
        assert!(!emitted.params.contains(&launch::Param::Counters));
        assert!(case.distance() <= 3.0, "{dtype}");
    }
}

#[test]
fn more_batches_than_counters_go_without_splits() {
    for (dtype, keys) in [(DType::F32, 65), (DType::BF16, 130)] {
        // Four batches of 64 heads are as many as there are counters.
        for (batch, counted) in [(4, true), (5, false)] {
            let case = Case {
                batch,
                heads: 64,
                kv_heads: 64,
                keys,
                dim: 8,
                value: 8,
                dtype,
                ..Case::default()
            };
            let Kernel::Attention(mut k) = case.kernel(false, case.scaled()) else {
                unreachable!("the case makes an attention");
            };
            k.batch = Dim::var(Var(2));
            let kernel = Kernel::Attention(k);
            let env = Env::new(&[0, 0, batch as i64]);
            let (emitted, mut args) = (emitted(&kernel), case.args());
            let done = launch(&kernel, &emitted[0], &env, &[], 3, &mut args);
            assert_eq!(done.atomics > 0, counted, "{batch} {dtype}");
            let d = distance_of(&kernel, &emitted[..2], &env, &case.args());
            assert!(d <= 3.0, "{batch} {dtype}");
        }
    }
}

#[test]
fn the_number_of_keys_changes_no_launch() {
    let case = Case::default();
    let kernel = case.kernel(true, case.scaled());
    for target in Target::ALL {
        let emitted = ptx::emit(&kernel, target).unwrap();
        // The first runtime integer is the number of queries.
        assert_eq!(emitted.grid_vars(), [Var(0)], "{target}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_equals_the_reference(
        queries in 1usize..50,
        past in 0usize..90,
        group in 1usize..4,
        dim in 1usize..40,
        octets in any::<bool>(),
        window in prop::option::of(1usize..50),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        let dim = if octets { dim.next_multiple_of(8) } else { dim };
        let case = Case {
            queries,
            keys: queries + past,
            heads: 2 * group,
            dim,
            value: dim,
            causal: true,
            window,
            dtype,
            ..Case::default()
        };
        let d = case.distance();
        prop_assert!(d <= 3.0, "{}", d);
    }
}
