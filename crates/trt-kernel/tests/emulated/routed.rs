//! Products by the experts that integers choose, as PTX and on the host.

use super::corpus::kernels::routed;
use super::*;

fn named(name: &str) -> Kernel {
    let mut all = routed::kernels().into_iter();
    let found = all.find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("no {name}")).1
}

fn product(kernel: &Kernel) -> &Matmul {
    match kernel {
        Kernel::Routed(k) => &k.product,
        other => panic!("a {}", other.kind()),
    }
}

/// Arguments with these experts asked for.
fn given(kernel: &Kernel, ids: &[f64]) -> Vec<Buffer> {
    let k = product(kernel);
    let env = Env::default();
    let [batch, m, n, depth] = [&k.batch, &k.m, &k.n, &k.k].map(|d| d.size(&env));
    assert_eq!(ids.len(), m);
    vec![
        Buffer::new(DType::U32, ids.iter().copied()),
        Buffer::random(k.args[1], m * depth, 1),
        Buffer::random(k.args[2], batch * n * depth, 2),
        Buffer::random(k.args[3], m * n, 3),
    ]
}

/// How far host and PTX are from the reference, in what the dtype resolves near 1. What no expert's rows
/// are must stay as it is.
fn distances(kernel: &Kernel, args: &[Buffer]) -> [f64; 2] {
    let env = Env::default();
    let mut exact = args.to_vec();
    reference::run(kernel, &env, &mut exact);
    let mut host = args.to_vec();
    reference::host(kernel, &env, None, &mut host).unwrap();
    let mut worst: f64 = 0.0;
    for (i, e) in emitted(kernel).iter().enumerate() {
        let mut ours = args.to_vec();
        launch(kernel, e, &env, &[], i as u64, &mut ours);
        worst = worst.max(ours[3].distance(&exact[3]));
    }
    [host[3].distance(&exact[3]), worst]
}

#[test]
fn rows_of_an_expert_are_multiplied_and_no_others() {
    let kernel = named("expert_3x5x67_bf16");
    for ids in [[3.0, 1.0, 3.0], [0.0, 1.0, 4.0], [3.0, 3.0, 3.0]] {
        let worst = distances(&kernel, &given(&kernel, &ids));
        assert!(worst.iter().all(|d| *d <= 4.0), "{ids:?}: {worst:?}");
    }
}

#[test]
fn of_weights_that_lie_together_each_row_meets_its_own() {
    let kernel = named("experts_4_of_3x96x64_bf16");
    for ids in [[3.0, 6.0, 4.0], [5.0, 5.0, 2.0], [7.0, 0.0, 6.0]] {
        let worst = distances(&kernel, &given(&kernel, &ids));
        assert!(worst.iter().all(|d| *d <= 4.0), "{ids:?}: {worst:?}");
    }
}

#[test]
fn any_range_and_any_tiles_give_the_same_bits() {
    let kernel = named("expert_8x768x2048_bf16");
    let ids = [3.0, 1.0, 3.0, 2.0, 9.0, 3.0, 0.0, 3.0];
    let args = given(&kernel, &ids);
    let env = Env::default();
    let form = &emitted(&kernel)[0];
    let (mut whole, mut parts) = (args.clone(), args.clone());
    launch(&kernel, form, &env, &[], 0, &mut whole);
    for rows in [(0..128, 64), (128..640, 256), (640..768, 128)] {
        launch(&kernel, form, &env, &[rows], 1, &mut parts);
    }
    assert_eq!(whole[3].bytes, parts[3].bytes);

    let (mut whole, mut parts) = (args.clone(), args.clone());
    reference::host(&kernel, &env, None, &mut whole).unwrap();
    for rows in [0..128, 128..640, 640..768] {
        let row = 2 * 2048;
        let mut own = parts.clone();
        own[2].bytes = args[2].bytes[rows.start * row..rows.end * row].to_vec();
        reference::host(&kernel, &env, Some(rows), &mut own).unwrap();
        parts[3] = own[3].clone();
    }
    assert_eq!(whole[3].bytes, parts[3].bytes);
}

#[test]
fn what_cannot_be_routed_is_refused() {
    let kernel = named("expert_3x5x67_bf16");
    let refused = |change: &dyn Fn(&mut Routed)| {
        let Kernel::Routed(mut k) = kernel.clone() else {
            panic!("a {}", kernel.kind())
        };
        change(&mut k);
        assert!(Kernel::Routed(k).check().is_err());
    };
    refused(&|k| k.product.args[0] = DType::F32.into());
    refused(&|k| k.ids.arg = Arg(4));
    refused(&|k| k.ids.view.strides.clear());
    refused(&|k| k.product.batch = Dim::var(Var(0)));
}
