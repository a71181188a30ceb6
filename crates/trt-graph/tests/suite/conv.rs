//! Convolutions: what they compute is candle's, and how they are compiled.

use crate::support::{compare, noise, trace_step};
use candle_core::Tensor as Theirs;
use proptest::prelude::*;
use trt_graph::candle::{DType, Device::Cpu, Module, Result, Tensor};
use trt_graph::candle_nn::{self as nn, Conv2dConfig};
use trt_graph::program::Program;
use trt_graph::{Call, Graph};
use trt_kernel::ptx::{Target, emit};
use trt_kernel::{DType as Stored, Kernel, Role};

/// The numbers of a convolution: `[b, c_in, places..]` with `[c_out, c_in / groups, window..]`.
#[derive(Clone, Debug)]
struct Case {
    input: Vec<usize>,
    kernel: Vec<usize>,
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
}

fn data(name: &str, dims: &[usize]) -> Vec<f32> {
    let n = dims.iter().product();
    let values = noise(name, n, Stored::F32).into_iter();
    values.map(|v| v as f32).collect()
}

/// One expression for both kinds of tensor.
macro_rules! convolve {
    ($x:expr, $k:expr, $c:expr) => {
        match $c.input.len() {
            3 => $x.conv1d($k, $c.padding, $c.stride, $c.dilation, $c.groups),
            _ => $x.conv2d($k, $c.padding, $c.stride, $c.dilation, $c.groups),
        }
    };
}

fn theirs(c: &Case) -> (Vec<usize>, Vec<f32>) {
    let of = |name, dims: &[usize]| {
        Theirs::from_vec(data(name, dims), dims, &candle_core::Device::Cpu).unwrap()
    };
    let y = convolve!(of("x", &c.input), &of("k", &c.kernel), c).unwrap();
    let flat = y.flatten_all().unwrap().to_vec1().unwrap();
    (y.dims().to_vec(), flat)
}

fn ours(c: &Case) -> (Vec<usize>, Vec<f32>) {
    let of = |name, dims: &[usize]| Tensor::from_vec(data(name, dims), dims, &Cpu).unwrap();
    let y = convolve!(of("x", &c.input), &of("k", &c.kernel), c).unwrap();
    let flat = y.flatten_all().unwrap().to_vec1().unwrap();
    (y.dims().to_vec(), flat)
}

/// The case as a traced model whose kernel is a weight.
fn traced(c: &Case) -> Graph {
    let name: Vec<String> = c.kernel.iter().map(usize::to_string).collect();
    let name = format!("w{}", name.join("x"));
    trace_step(&[], |call, vb| {
        let x = call.input("x", c.input.as_slice(), DType::F32)?;
        let k = vb.get(c.kernel.as_slice(), &name)?;
        Ok(vec![convolve!(x, &k, c)?])
    })
    .unwrap()
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = (
        1usize..4,
        1usize..4,
        prop::sample::select(vec![1usize, 1, 2, 3]),
    );
    let windows = prop::collection::vec((1usize..6, 0usize..9), 1..3);
    (
        1usize..3,
        channels,
        windows,
        0usize..3,
        1usize..4,
        1usize..3,
        any::<bool>(),
    )
        .prop_map(
            |(b, (c_in, c_out, groups), windows, padding, stride, dilation, own)| {
                let c_in = if own { 1 } else { c_in };
                let mut input = vec![b, c_in * groups];
                let mut kernel = vec![c_out * groups, c_in];
                for (k, more) in windows {
                    let reach = dilation * (k - 1) + 1;
                    input.push(reach.saturating_sub(2 * padding).max(1) + more);
                    kernel.push(k);
                }
                Case {
                    input,
                    kernel,
                    padding,
                    stride,
                    dilation,
                    groups,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_convolution_is_that_of_candle(case in cases()) {
        let ((dims, found), (shape, expected)) = (ours(&case), theirs(&case));
        prop_assert_eq!(dims, shape);
        for (a, b) in found.iter().zip(&expected) {
            prop_assert!((a - b).abs() <= 1e-4, "{a} instead of {b}");
        }
    }

    #[test]
    fn a_compiled_convolution_follows_the_reference(case in cases()) {
        if let Err(e) = compare(&traced(&case), &[], 1e-4) {
            return Err(TestCaseError::fail(e));
        }
    }
}

fn compiled(graph: Graph) -> Program {
    let (program, _) = trt_graph::compile(graph).unwrap();
    program
}

fn kinds(program: &Program) -> Vec<&'static str> {
    program.launches.iter().map(|l| l.kernel.kind()).collect()
}

fn case(input: &[usize], kernel: &[usize], padding: usize, stride: usize, groups: usize) -> Case {
    Case {
        input: input.to_vec(),
        kernel: kernel.to_vec(),
        padding,
        stride,
        dilation: 1,
        groups,
    }
}

#[test]
fn a_pointwise_convolution_of_one_image_is_a_product_alone() {
    let program = compiled(traced(&case(&[1, 8, 5, 7], &[6, 8, 1, 1], 0, 1, 1)));
    assert_eq!(kinds(&program), ["matmul"], "{program}");
    assert!(program.weights[0].roles.has(Role::Rows));
}

#[test]
fn windows_are_copied_once_and_the_weight_is_ranged() {
    let program = compiled(traced(&case(&[1, 8, 9, 9], &[6, 8, 3, 3], 0, 1, 1)));
    assert_eq!(kinds(&program), ["move", "matmul"], "{program}");
    let w = &program.weights[0];
    assert_eq!(w.roles, Role::Rows.into(), "{program}");
    let Kernel::Matmul(product) = &program.launches[1].kernel else {
        panic!("{program}");
    };
    assert_eq!(
        (product.m.to_string(), product.k.to_string()),
        ("49".into(), "72".into())
    );
}

#[test]
fn a_channel_to_itself_needs_one_kernel() {
    let program = compiled(traced(&case(&[2, 4, 9, 9], &[4, 1, 3, 3], 0, 2, 4)));
    assert_eq!(kinds(&program), ["row"], "{program}");
}

/// Two convolutions with what stands around them in a residual network.
fn residual(call: &Call<'_>, vb: &nn::VarBuilder) -> Result<Vec<Tensor>> {
    let b = call.int("batch")?;
    let x = call.input("x", (b, 8, 6, 6), DType::F32)?;
    let cfg = Conv2dConfig {
        padding: 1,
        ..Default::default()
    };
    let conv = |name: &str, bias: &str| -> Result<nn::Conv2d> {
        let bias = vb.get(8, bias)?;
        Ok(nn::Conv2d::new(
            vb.get((8, 8, 3, 3), name)?,
            Some(bias),
            cfg,
        ))
    };
    let first = conv("a.w8x8x3x3", "a.w8")?.forward(&x)?.relu()?;
    let second = conv("b.w8x8x3x3", "b.w8")?.forward(&first)?.silu()?;
    Ok(vec![
        conv("c.w8x8x3x3", "c.w8")?
            .forward(&second)?
            .add(&first)?
            .relu()?,
    ])
}

#[test]
fn bias_activation_and_residual_are_epilogues_at_any_batch() {
    let graph = trace_step(&[("batch", 1, 3)], residual).unwrap();
    for batch in 1..=3 {
        compare(&graph, &[batch], 1e-4).unwrap();
    }
    let (program, report) = trt_graph::compile(graph).unwrap();
    let products: Vec<&str> = program
        .launches
        .iter()
        .filter(|l| l.kernel.kind() == "matmul")
        .map(|l| l.label.as_str())
        .collect();
    let expected = ["matmul+add+relu", "matmul+add+silu", "matmul+add+add+relu"];
    assert_eq!(products, expected, "{program}");
    assert!(
        !report
            .kernels
            .iter()
            .any(|k| k.kind == "row" && k.ops != ["zeros"]),
        "{program}"
    );
}

#[test]
fn a_result_for_one_image_is_stored_where_the_caller_reads_it() {
    let program = compiled(traced(&case(&[1, 3, 8, 8], &[5, 3, 4, 4], 0, 4, 1)));
    assert_eq!(kinds(&program), ["move", "matmul"], "{program}");
}

/// What a diffusion model is made of: group norm, silu and convolution, twice, around the input.
fn norms_and_convolutions(call: &Call<'_>, vb: &nn::VarBuilder) -> Result<Vec<Tensor>> {
    let x = call.input("x", (1, 8, call.int("height")?, 6), DType::F32)?;
    let half = |x: &Tensor, name: &str| -> Result<Tensor> {
        let vb = vb.pp(name);
        let cfg = Conv2dConfig {
            padding: 1,
            ..Default::default()
        };
        let norm = nn::GroupNorm::new(vb.get(8, "w8")?, vb.get(8, "n.w8")?, 8, 2, 1e-5)?;
        let conv = nn::Conv2d::new(
            vb.get((8, 8, 3, 3), "w8x8x3x3")?,
            Some(vb.get(8, "c.w8")?),
            cfg,
        );
        conv.forward(&norm.forward(x)?.silu()?)
    };
    Ok(vec![half(&half(&x, "a")?, "b")?.add(&x)?])
}

#[test]
fn a_group_norm_is_its_statistics_and_a_pass_that_goes_on_with_what_follows() {
    let graph = trace_step(&[("height", 1, 9)], norms_and_convolutions).unwrap();
    for height in [1, 4, 9] {
        compare(&graph, &[height], 1e-4).unwrap();
    }
    let (program, report) = trt_graph::compile(graph).unwrap();
    let launches: Vec<String> = report.kernels.iter().map(|k| k.ops.join(" ")).collect();
    let statistics = "reduce_sum recip mul sub sqr reduce_sum mul add sqrt";
    let padded = format!("{statistics} zeros zeros");
    let norm = "sub div mul add silu";
    let expected = [
        [&padded, norm, "copy", "matmul add"],
        [statistics, norm, "copy", "matmul add add"],
    ];
    assert_eq!(launches, expected.concat(), "{program}");
}

#[test]
fn what_does_not_fit_is_an_error_with_its_numbers() {
    let x = Tensor::from_vec(data("x", &[1, 4, 5, 5]), (1, 4, 5, 5), &Cpu).unwrap();
    let kernel = |dims: &[usize]| Tensor::from_vec(data("k", dims), dims, &Cpu).unwrap();
    let message = |r: Result<Tensor>| r.unwrap_err().to_string();
    let error = message(x.conv2d(&kernel(&[6, 3, 3, 3]), 0, 1, 1, 1));
    assert!(
        error.contains("input (4, groups 1) and kernel (3)"),
        "{error}"
    );
    let error = message(x.conv2d(&kernel(&[6, 4, 3, 3]), 0, 1, 3, 1));
    assert!(
        error.contains("3 elements 3 apart") && error.contains("into 5"),
        "{error}"
    );
    let error = message(x.conv2d(&kernel(&[6, 4, 3, 3]), 0, 0, 1, 1));
    assert!(error.contains("stride 0"), "{error}");
    let error = message(x.conv2d(&kernel(&[5, 2, 3, 3]), 0, 1, 1, 2));
    assert!(
        error.contains("5 out-channels") && error.contains("2 groups"),
        "{error}"
    );
    let error = message(x.conv2d(&kernel(&[5, 4, 3]), 0, 1, 1, 1));
    assert!(error.contains("rank"), "{error}");
}

#[test]
fn every_launch_of_a_residual_network_has_a_kernel_for_every_gpu() {
    let graph = trace_step(&[("batch", 1, 3)], residual).unwrap();
    for launch in compiled(graph).launches {
        for target in Target::ALL {
            let emitted = emit(&launch.kernel, target);
            assert!(
                emitted.is_ok(),
                "{} for {target}: {:?}",
                launch.label,
                emitted.err()
            );
        }
    }
}
