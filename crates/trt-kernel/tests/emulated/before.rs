//! Attention that rows come before, in one launch: rope of queries and keys, appends.

use super::corpus::kernels::step::{K, KEYS, OWN, STEP, Step, VALUES};
use super::*;
use proptest::prelude::*;
use trt_kernel::fusible::runs_before;

const SMALL: Step = Step {
    heads: [2, 3],
    room: 1024,
    ..STEP
};

fn env(past: i64) -> Env {
    Env::new(&[past])
}

/// Arguments of a step behind so many positions; what no call has stored yet is no number.
fn buffers(step: &Step, past: i64) -> Vec<Buffer> {
    let row = step.batch * step.heads[0] * step.dim;
    let table = (past + 1) * step.dim / 2;
    let (all, cache) = (row * step.heads[1], row * step.room);
    let sizes = [all, row, row, table, table, cache, cache, all];
    let each = step.args().into_iter().zip(sizes).enumerate();
    let random = |(i, (d, n)): (usize, (DType, i64))| Buffer::random(d, n as usize, i as u64 + 1);
    let mut args: Vec<Buffer> = each.map(random).collect();
    let end = past + i64::from(step.values_there);
    let bytes = |rows: i64| rows as usize * step.dim as usize * step.dtype.size();
    for (cache, end) in [(KEYS, past), (VALUES, end)] {
        for head in args[cache.0 as usize].bytes.chunks_mut(bytes(step.room)) {
            head[bytes(end)..].fill(0xff);
        }
    }
    args
}

fn worst(step: &Step, past: i64) -> f64 {
    let k = step.attention();
    assert!(runs_before(&k), "{step:?}");
    distance(&Kernel::Attention(k), &env(past), &buffers(step, past))
}

#[test]
fn a_step_equals_the_reference_at_any_length() {
    for past in [0, 1, 15, 16, 63, 64, 127, 128, 129, 191, 192, 1000] {
        for dtype in [DType::BF16, DType::F16] {
            let d = worst(&Step { dtype, ..SMALL }, past);
            assert!(d <= 3.0, "{past} {dtype}: {d}");
        }
    }
}

#[test]
fn heads_and_groups_may_have_any_size() {
    for (dim, kv_heads, group) in [
        (64, 1, 1),
        (64, 3, 3),
        (128, 2, 4),
        (128, 1, 8),
        (96, 2, 4),
        (128, 1, 12),
        (8, 2, 2),
        (256, 1, 2),
        (64, 2, 20),
        (256, 1, 11),
    ] {
        for past in [0, 40, 200] {
            let heads = [kv_heads, group];
            let d = worst(
                &Step {
                    dim,
                    heads,
                    ..SMALL
                },
                past,
            );
            assert!(d <= 3.0, "{dim} {kv_heads} {group} {past}: {d}");
        }
    }
}

/// What the kernel makes of a step, and what its parts make as launches of their own.
fn both(step: &Step, past: i64, run: impl Fn(&Kernel, &Env, &mut [Buffer])) -> [Vec<Buffer>; 2] {
    let (k, env) = (step.attention(), env(past));
    let (rows, inner) = k.split().unwrap();
    let mut fused = buffers(step, past);
    let mut apart = fused.clone();
    apart.push(Buffer::zeros(step.dtype, k.own_elements().unwrap()));
    let parts = rows.iter().map(|row| Kernel::Row(row.clone()));
    for part in parts.chain([Kernel::Attention(inner)]) {
        run(&part, &env, &mut apart);
    }
    apart.pop();
    run(&Kernel::Attention(k), &env, &mut fused);
    [fused, apart]
}

#[test]
fn one_launch_gives_the_bits_of_its_parts() {
    for past in [0, 100, 500] {
        for target in Target::ALL {
            let [fused, apart] = both(&SMALL, past, |kernel, env, args| {
                let emitted = ptx::emit(kernel, target).unwrap();
                launch(kernel, &emitted, env, &[], past as u64, args);
            });
            assert!(fused == apart, "{past} {target}");
        }
    }
}

#[test]
fn the_host_runs_the_parts() {
    for dtype in [DType::BF16, DType::F32] {
        let [fused, apart] = both(&Step { dtype, ..SMALL }, 70, |kernel, env, args| {
            reference::host(kernel, env, None, args).unwrap();
        });
        assert!(fused == apart, "{dtype}");
    }
}

#[test]
fn with_tensor_cores_it_is_one_launch_else_one_for_each_part() {
    let kernel = Kernel::Attention(SMALL.attention());
    for target in Target::ALL {
        let launches = ptx::emit(&kernel, target).unwrap().launches;
        let expected = if target < Target::Sm80 { 4 } else { 1 };
        assert_eq!(launches.len(), expected, "{target}: {launches:?}");
    }
}

#[test]
fn rows_of_f32_are_launches_of_their_own() {
    let step = Step {
        dtype: DType::F32,
        ..SMALL
    };
    let k = step.attention();
    assert!(!runs_before(&k));
    let d = distance(&Kernel::Attention(k), &env(70), &buffers(&step, 70));
    assert!(d <= 3.0, "{d}");
}

#[test]
fn values_may_be_there_already() {
    let step = Step {
        values_there: true,
        angles: DType::F32,
        ..SMALL
    };
    for past in [0, 64, 130] {
        let d = worst(&step, past);
        assert!(d <= 3.0, "{past}: {d}");
    }
}

#[test]
fn windows_and_batches_have_last_keys_too() {
    for (past, window) in [(0, 1), (300, 1), (700, 100), (64, 64)] {
        let step = Step {
            batch: 2,
            window: Some(window),
            ..SMALL
        };
        let d = worst(&step, past);
        assert!(d <= 3.0, "{past} {window}: {d}");
    }
}

#[test]
fn what_blocks_cannot_run_for_themselves_is_refused() {
    let refused = |change: &dyn Fn(&mut Attention)| {
        let mut k = SMALL.attention();
        change(&mut k);
        Kernel::Attention(k.clone()).check().unwrap();
        assert!(!runs_before(&k), "{}", Kernel::Attention(k));
    };
    // The key of this call is not the last one.
    refused(&|k| k.keys = &k.keys + &Dim::from(1));
    // Not all heads, or not all columns, are stored.
    refused(&|k| k.before[1].space[1] = Dim::from(1));
    refused(&|k| {
        k.before[1].body.insts.pop();
    });
    // Nobody computes the queries.
    refused(&|k| {
        k.before.remove(0);
    });
    // A row reads what another one stores.
    refused(&|k| {
        for inst in &mut k.before[1].body.insts {
            if let Inst::Load(arg, _) = inst
                && *arg == K
            {
                *arg = VALUES;
            }
        }
    });
    // The last key is not seen.
    refused(&|k| {
        k.causal = Some(Causal {
            offset: &Dim::var(Var(0)) - &Dim::from(1),
            window: None,
        });
    });
}

#[test]
fn queries_outside_of_the_launch_s_memory_break_the_kernel() {
    let check = |change: &dyn Fn(&mut Attention)| {
        let mut k = SMALL.attention();
        change(&mut k);
        Kernel::Attention(k).check()
    };
    check(&|_| {}).unwrap();
    check(&|k| k.q.view.offset = Dim::from(1)).unwrap_err();
    check(&|k| k.q.view.offset = Dim::var(Var(0))).unwrap_err();
    check(&|k| k.before[0].space[1] = Dim::from(7)).unwrap_err();
    check(&|k| k.q.arg = K).unwrap_err();
    check(&|k| k.v.arg = OWN).unwrap_err();
    check(&|k| k.before[1].args[0] = DType::F32).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_step_equals_the_reference(
        past in 0i64..400,
        kv_heads in 1i64..4,
        group in 1i64..10,
        octets in 1i64..17,
        window in prop::option::of(1usize..300),
        dtype in prop::sample::select(vec![DType::BF16, DType::F16]),
        angles in prop::sample::select(vec![DType::BF16, DType::F32]),
    ) {
        let step = Step {
            heads: [kv_heads, group],
            dim: 8 * octets,
            window,
            dtype,
            angles,
            ..SMALL
        };
        let d = worst(&step, past);
        prop_assert!(d <= 3.0, "{}", d);
    }
}
