//! Elements that are read while a model is traced: of constants and of small weights.

use crate::support::{inputs, trace_step, weight};
use trt_graph::candle::{D, DType, Device, Result, Tensor};
use trt_graph::reference::{Leaves, run};
use trt_kernel::Env;

/// What reading gives while a step is traced, or why it gives nothing.
fn read(
    what: impl Fn(&trt_graph::candle_nn::VarBuilder, &Tensor) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let seen = std::cell::RefCell::new(None);
    let traced = trace_step(&[("n", 2, 9)], |call, vb| {
        let x = call.input("x", (call.int("n")?, 4), DType::F32)?;
        *seen.borrow_mut() = Some(what(vb, &x));
        Ok(vec![x])
    });
    traced.expect("the step itself traces");
    seen.into_inner().expect("it was called")
}

#[test]
fn a_weight_reads_as_it_lies_in_its_file() {
    for name in ["a.w5x4", "a.h5x4", "a.b5x64"] {
        let array = weight(name).expect("a weight");
        let shape = array.shape.clone();
        let got = read(|vb, _| {
            let rows = vb.get((shape[0], shape[1]), name)?.to_vec2::<f32>()?;
            Ok(rows.concat())
        });
        let want: Vec<f32> = array.data.iter().map(|v| *v as f32).collect();
        assert_eq!(got.expect("values"), want, "{name}");
    }
}

#[test]
fn what_is_computed_of_weights_and_constants_is_known() {
    let w = weight("a.w5x4").expect("a weight").data;
    let sums: Vec<f32> = w
        .chunks(4)
        .map(|row| row.iter().map(|v| 2.0 * v).sum::<f64>() as f32)
        .collect();
    let got = read(|vb, _| {
        let twice = (vb.get((5, 4), "a.w5x4")? * 2.0)?;
        twice.sum(D::Minus1)?.to_vec1::<f32>()
    });
    for (a, b) in got.expect("values").iter().zip(&sums) {
        assert!((a - b).abs() < 1e-6, "{a} for {b}");
    }
    let got = read(|vb, _| {
        Ok(vec![
            vb.get((5, 4), "a.w5x4")?.max_all()?.to_scalar::<f32>()?,
        ])
    });
    let most = w.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(got.expect("a value"), [most as f32]);
}

/// What is read becomes numbers of the program; the weight itself is in it only where it is used as a tensor.
#[test]
fn what_was_read_is_a_constant_of_the_graph() {
    let graph = trace_step(&[("n", 2, 9)], |call, vb| {
        let x = call.input("x", (call.int("n")?, 4), DType::F32)?;
        let by = vb.get((5, 4), "a.w5x4")?.to_vec2::<f32>()?[1][2];
        let row = vb.get((5, 4), "a.w5x4")?.to_vec2::<f32>()?.remove(3);
        let row = Tensor::new(row, &Device::Cpu)?;
        Ok(vec![x.affine(f64::from(by), 0.0)?.broadcast_add(&row)?])
    });
    let graph = graph.expect("it traces");
    let env = Env::new(&[3]);
    let given = inputs(&graph, &env);
    let leaves = Leaves {
        env,
        inputs: &given,
        states: &[],
        weight: &|name| panic!("{name} is no tensor of this graph"),
    };
    let (out, _) = run(&graph, &leaves).expect("it runs");
    let w = weight("a.w5x4").expect("a weight").data;
    for (i, (y, x)) in out[0].data.iter().zip(&given[0].data).enumerate() {
        let want = x * w[6] + w[12 + i % 4];
        assert!((y - want).abs() < 1e-6, "{y} for {want}");
    }
}

#[test]
fn more_than_a_mebibyte_of_weights_is_refused_with_both_numbers() {
    let name = "a.w1024x257";
    let got = read(|vb, _| {
        Ok(vec![
            vb.get((1024, 257), name)?.sum_all()?.to_scalar::<f32>()?,
        ])
    });
    let text = got.expect_err("it is too much").to_string();
    assert!(
        text.contains("1052672") && text.contains("1048576"),
        "{text}"
    );
}

/// An input is what is said of it, though weights are behind it too and may be too large.
#[test]
fn what_depends_on_an_input_is_not_known() {
    let got = read(|vb, x| {
        let w = vb.get((1024, 4), "a.w1024x4")?;
        x.matmul(&w.t()?)?
            .max_all()?
            .to_scalar::<f32>()
            .map(|v| vec![v])
    });
    let text = got.expect_err("an input is not known").to_string();
    assert!(
        text.contains("to_scalar reads") && text.contains("an input of the call"),
        "{text}"
    );
}
