//! Errors name the line of model code.

use crate::support::{trace_step, weights};
use trt_graph::candle::{D, DType, Device, IndexOp, Module, Result, Tensor};
use trt_graph::candle_nn as nn;
use trt_graph::{Call, Error, Line};

const CPU: Device = Device::Cpu;

/// Whether a line is this file's of a number.
fn is_here(line: Line, number: u32) -> bool {
    line.0
        .is_some_and(|at| at.file().ends_with("tests/suite/lines.rs") && at.line() == number)
}

#[test]
#[rustfmt::skip]
fn a_tensor_knows_the_line_that_made_it_through_closures_layers_and_operators() {
    let x = Tensor::ones((2, 3, 4), DType::F32, &CPU).unwrap();
    let v = Tensor::ones(4, DType::F32, &CPU).unwrap();
    let ids = Tensor::new(&[1u32, 0], &CPU).unwrap();
    let image = x.reshape((1, 2, 3, 4)).unwrap();
    let linear = nn::Linear::new(Tensor::ones((5, 4), DType::F32, &CPU).unwrap(), None);
    let layers = nn::seq().add(nn::Linear::new(Tensor::ones((5, 4), DType::F32, &CPU).unwrap(), None)).add(nn::Activation::Silu);
    let made: Vec<(u32, Result<Tensor>)> = vec![
        (line!(), &x + &x),
        (line!(), 2.0 - &x),
        (line!(), (&x * 2.0) / &x),
        (line!(), x.sum_keepdim((0, 1))),
        (line!(), x.mean(D::Minus1)),
        (line!(), x.var(1)),
        (line!(), x.affine(2.0, 1.0)),
        (line!(), x.broadcast_mul(&v)),
        (line!(), x.gt(0f32)),
        (line!(), x.i((.., 1..))),
        (line!(), x.i((.., &ids))),
        (line!(), Ok(x.chunk(2, 2).unwrap()[1].clone())),
        (line!(), Tensor::stack(&[&x, &x], 0)),
        (line!(), x.repeat((1, 2, 1))),
        (line!(), x.pad_with_zeros(1, 1, 1)),
        (line!(), x.slice_assign(&[0..1, 0..3, 0..4], &x.narrow(0, 0, 1).unwrap())),
        (line!(), Ok(Tensor::meshgrid(&[&v, &v], true).unwrap()[0].clone())),
        (line!(), Tensor::arange(0f32, 3.0, &CPU)),
        (line!(), linear.forward(&x)),
        (line!(), x.apply(&linear)),
        (line!(), layers.forward(&x)),
        (line!(), nn::ops::softmax(&x, 1)),
        (line!(), nn::ops::rms_norm(&x, &v, 1e-5)),
        (line!(), nn::Activation::HardSwish.forward(&x)),
        (line!(), image.max_pool2d(2)),
        (line!(), image.conv2d(&image, 1, 1, 1, 1)),
        (line!(), image.upsample_bilinear2d(6, 8, false)),
        (line!(), nn::rotary_emb::rope_slow(&image, &Tensor::ones((3, 2), DType::F32, &CPU).unwrap(), &Tensor::ones((3, 2), DType::F32, &CPU).unwrap())),
        (line!(), weights().get((5, 4), "w5x4")),
    ];
    let wrong: Vec<String> = made
        .into_iter()
        .map(|(line, t)| (line, t.unwrap().line()))
        .filter(|(line, made)| !is_here(*made, *line))
        .map(|(line, made)| format!("made in line {line},{made}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The error of a step over `n` in 2..=9.
fn error(step: impl Fn(&Call<'_>) -> Result<Tensor>) -> Error {
    trace_step(&[("n", 2, 9)], |call, _| Ok(vec![step(call)?])).unwrap_err()
}

/// Whether an error names a line of this file.
fn names(error: &Error, line: u32) {
    let text = error.to_string();
    assert!(
        text.contains(&format!("tests/suite/lines.rs:{line}:")),
        "line {line}: {text}"
    );
}

#[test]
fn an_operation_that_fails_is_named_with_shapes_and_its_line() {
    let line = line!() + 4;
    let e = error(|call| {
        let x = call.input("x", (call.int("n")?, 3), DType::F32)?;
        let wide = Tensor::ones((4, 5), DType::F32, &CPU)?;
        x.matmul(&wide)
    });
    assert!(
        matches!(&e, Error::Model { line, .. } if line.0.is_some()),
        "{e}"
    );
    names(&e, line);
    let text = e.to_string();
    assert!(
        text.contains("matmul") && text.contains("[2, 3]") && text.contains("[4, 5]"),
        "{text}"
    );
    let line = line!() + 3;
    let e = error(|call| {
        let x = call.input("x", (call.int("n")?, 3), DType::F32)?;
        x.squeeze(7)
    });
    names(&e, line);
    let line = line!() + 3;
    let e = error(|call| {
        let x = call.input("x", (call.int("n")?, 3), DType::F32)?;
        let top = x.max_all()?.to_scalar::<f32>()?;
        x * f64::from(top)
    });
    names(&e, line);
    assert!(
        e.to_string()
            .contains("to_scalar reads the elements of Tensor["),
        "{e}"
    );
}

#[test]
fn what_does_not_generalise_is_named_with_its_op_and_line() {
    let line = line!() + 5;
    let e = error(|call| {
        let (n, x) = (call.int("n")?, Tensor::ones((100, 2), DType::F32, &CPU)?);
        // A power of two is no polynomial.
        let start = 1usize << n.min(6);
        x.narrow(0, start, 3)
    });
    assert!(
        matches!(e, Error::Size { .. }) && e.to_string().contains("narrow"),
        "{e}"
    );
    names(&e, line);
    let line = line!() + 4;
    let e = error(|call| {
        let n = call.int("n")?;
        let data: Vec<f32> = (0..n * n).map(|i| (i * i % 7 + n) as f32).collect();
        Tensor::from_vec(data, (n, n), &CPU)
    });
    assert!(matches!(e, Error::Constant { .. }), "{e}");
    names(&e, line);
    let line = line!() + 8;
    let e = error(|call| {
        let (n, x) = (
            call.int("n")?,
            call.input("x", (call.int("n")?, 3), DType::F32)?,
        );
        let small = n < 5;
        match small {
            true => x.exp(),
            false => x.log(),
        }
    });
    assert!(matches!(e, Error::ControlFlow { .. }), "{e}");
    names(&e, line);
    names(&e, line + 1);
}

#[test]
fn a_weight_that_is_missing_is_named_with_the_line_that_asks_for_it() {
    let line = line!() + 3;
    let traced = trace_step(&[("n", 2, 9)], |_, vb| {
        let vb = vb.pp("layer");
        Ok(vec![vb.get(3, "missing")?])
    });
    let e = traced.unwrap_err();
    assert!(e.to_string().contains("'layer.missing'"), "{e}");
    names(&e, line);
}
