//! Programs that read packed rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use trt_graph::candle::{DType, Result, Tensor};
use trt_graph::candle_nn::{Module, Stored, VarBuilder, WeightSource, linear_no_bias};
use trt_graph::program::{PackedForm, ParamId, Program};
use trt_graph::{Call, Profile, compile, trace};
use trt_kernel::{Encoding, Kernel, Order, PackedType, Role};

/// Weights of bf16 whose names say their shapes.
struct Files;

impl WeightSource for Files {
    fn find(&self, name: &str) -> Option<Stored> {
        let shape = match name {
            "gate.weight" | "up.weight" => vec![128, 64],
            "down.weight" => vec![64, 128],
            _ => return None,
        };
        Some(Stored::new(name, shape, trt_kernel::DType::BF16))
    }
    fn similar(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// An MLP of a token: gate and up are a chain.
fn program() -> Program {
    let mut load = |vb: VarBuilder| {
        let gate = linear_no_bias(64, 128, vb.pp("gate"))?;
        let up = linear_no_bias(64, 128, vb.pp("up"))?;
        let down = linear_no_bias(128, 64, vb.pp("down"))?;
        Ok(move |call: &Call<'_>| -> Result<Vec<Tensor>> {
            let _ = call.int("rows")?;
            let x = call.input("x", (1, 64), DType::BF16)?;
            let both = (gate.forward(&x)?.silu()? * up.forward(&x)?)?;
            Ok(vec![down.forward(&both)?])
        })
    };
    let vb = VarBuilder::new(Arc::new(Files), DType::BF16);
    let profile = Profile::single(&[("rows", 1, 8)]).unwrap();
    let graph = trace(&mut load, &vb, &profile.classes[0]).unwrap();
    compile(graph).unwrap().0
}

fn form(name: &str, packed: PackedType) -> PackedForm {
    PackedForm {
        packed,
        code: format!("{name}.code").into(),
        code_bytes: 16400,
    }
}

#[test]
fn every_launch_that_reads_rows_reads_them_packed() {
    let plain = program();
    let packable = plain.packable();
    assert_eq!(packable.len(), 3, "{plain}");
    let forms: BTreeMap<ParamId, PackedForm> = packable
        .iter()
        .map(|w| (*w, form(&plain.weight(*w).name, PackedType::Bf16Pairs)))
        .collect();
    assert_eq!(plain.mixed(&forms), None);
    let (packed, added) = plain.packed(&forms);
    packed.verify().unwrap();
    assert_eq!(packed.launches.len(), plain.launches.len());
    for (i, w) in plain.weights.iter().enumerate() {
        let params = added.iter().find(|a| a.of == ParamId(i as u32)).unwrap();
        let (rows, code) = (packed.weight(params.rows), packed.weight(params.code));
        assert_eq!((&rows.name, &rows.shape), (&w.name, &w.shape));
        assert_eq!(rows.encoding, Encoding::Packed(PackedType::Bf16Pairs));
        assert_eq!(code.encoding, Encoding::Code);
        assert!(rows.roles.has(Role::Rows) && code.roles.has(Role::Whole));
        // Nobody reads the plain rows any more.
        assert!(!packed.weights[i].roles.has(Role::Rows));
    }
}

#[test]
fn a_chain_is_packed_in_one_way_or_not_at_all() {
    let plain = program();
    let chain = plain.launches.iter().find(|l| match &l.kernel {
        Kernel::Group(group) => group.order == Order::Chain,
        _ => false,
    });
    let weights = chain.expect("gate and up are a chain").ranged_weights();
    let one = |w: ParamId, packed| (w, form(&plain.weight(w).name, packed));
    let alone = BTreeMap::from([one(weights[1], PackedType::Bf16Pairs)]);
    assert_eq!(plain.mixed(&alone), Some(weights[1]));
    let two = BTreeMap::from([
        one(weights[0], PackedType::Bf16Pairs),
        one(weights[1], PackedType::Bf16Singles),
    ]);
    assert_eq!(plain.mixed(&two), Some(weights[0]));
}
