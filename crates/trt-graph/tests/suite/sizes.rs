//! Sizes that model code asks for: any are answered with a tensor or an error, at once.

use crate::support::{trace_step, weights};
use trt_graph::candle::{DType, Device, IndexOp, Result, Tensor};
use trt_graph::candle_nn::kv_cache::Cache;
use trt_graph::candle_transformers::utils::build_causal_mask;

const CPU: Device = Device::Cpu;
/// Sizes around every bound that there is.
const HUGE: [usize; 9] = [
    (1 << 16) + 1,
    (1 << 24) + 1,
    1 << 32,
    (1 << 48) + 1,
    1 << 53,
    usize::MAX / 16 + 1,
    usize::MAX / 2 + 1,
    usize::MAX - 1,
    usize::MAX,
];

fn ones(dims: &[usize]) -> Tensor {
    Tensor::ones(dims, DType::F32, &CPU).unwrap()
}

type Try = (&'static str, fn(usize) -> Result<Tensor>);

/// Everything in the API that makes a size of a number that it is given.
const ALL: &[Try] = &[
    ("zeros", |n| Tensor::zeros((n, 3), DType::F32, &CPU)),
    ("ones", |n| Tensor::ones((3, n, n), DType::U8, &CPU)),
    ("full", |n| Tensor::full(1f32, (n, n), &CPU)),
    ("tril2", |n| Tensor::tril2(n, DType::F32, &CPU)),
    ("triu2", |n| Tensor::triu2(n, DType::U8, &CPU)),
    ("arange", |n| Tensor::arange(0f64 as f32, n as f32, &CPU)),
    ("arange in halves", |n| {
        Tensor::arange_step(0f32, n as f32, 0.5, &CPU)
    }),
    ("arange without end", |_| {
        Tensor::arange_step(0f32, f32::INFINITY, 0.5, &CPU)
    }),
    ("arange of smallest steps", |_| {
        Tensor::arange_step(0f32, 1., 1e-30, &CPU)
    }),
    ("from_vec", |n| {
        Tensor::from_vec(vec![1f32; 4], (n, n), &CPU)
    }),
    ("from_slice", |n| {
        Tensor::from_slice(&[1u8; 0], (n, 0, n), &CPU)
    }),
    ("reshape", |n| ones(&[2, 3]).reshape((n, n))),
    ("reshape of nothing", |n| ones(&[0]).reshape((n, n, 0))),
    ("reshape with a hole", |n| ones(&[2, 3]).reshape((n, (), n))),
    ("repeat", |n| ones(&[2, 3]).repeat((n, n))),
    ("repeat one", |n| ones(&[1]).repeat(n)),
    ("broadcast_as", |n| ones(&[1, 3]).broadcast_as((n, 3))),
    ("expand", |n| ones(&[1, 1]).expand((n, n))),
    ("broadcast_left", |n| ones(&[2, 3]).broadcast_left(n)),
    ("broadcast_add", |n| {
        let wide = ones(&[1, 1]).broadcast_as((n, 1))?;
        wide.broadcast_add(&ones(&[1, 1]).broadcast_as((1, n))?)
    }),
    ("pad_with_zeros", |n| ones(&[2, 3]).pad_with_zeros(1, n, n)),
    ("narrow", |n| ones(&[2, 3]).narrow(1, n, n)),
    ("narrow by one", |n| ones(&[2, 3]).narrow(1, 1, n)),
    ("i", |n| ones(&[2, 3]).i((.., 1..=n))),
    ("get", |n| ones(&[2, 3]).get(n)),
    ("chunk", |n| {
        let long = ones(&[1]).broadcast_as(n)?;
        Tensor::cat(&long.chunk(n, 0)?, 0)
    }),
    ("cat", |n| {
        let long = ones(&[1, 2]).broadcast_as((n, 2))?;
        Tensor::cat(&[&long, &long, &long], 0)
    }),
    ("stack", |n| {
        let long = ones(&[1, 2]).broadcast_as((n, 2))?;
        Tensor::stack(&[&long, &long], 0)
    }),
    ("matmul", |n| {
        let tall = ones(&[1, 2]).broadcast_as((n, 2))?;
        tall.matmul(&tall.t()?)
    }),
    ("interpolate1d", |n| ones(&[1, 1, 3]).interpolate1d(n)),
    ("upsample_nearest2d", |n| {
        ones(&[1, 1, 3, 3]).upsample_nearest2d(n, n)
    }),
    ("interpolate2d of a multiple", |n| {
        ones(&[1, 1, 1, 1]).interpolate2d(n, 1)
    }),
    ("avg_pool2d", |n| ones(&[1, 1, 3, 3]).avg_pool2d((n, n))),
    ("max_pool2d with a stride", |n| {
        ones(&[1, 1, 3, 3]).max_pool2d_with_stride((1, 1), (n, n))
    }),
    ("conv1d with padding", |n| {
        ones(&[1, 1, 3]).conv1d(&ones(&[1, 1, 1]), n, 1, 1, 1)
    }),
    ("conv1d with dilation", |n| {
        ones(&[1, 1, 3]).conv1d(&ones(&[1, 1, 2]), 1, 1, n, 1)
    }),
    ("conv1d in groups", |n| {
        ones(&[1, 2, 3]).conv1d(&ones(&[2, 2, 2]), 1, 1, 1, n)
    }),
    ("conv2d with padding", |n| {
        ones(&[1, 1, 3, 3]).conv2d(&ones(&[1, 1, 2, 2]), n, 2, 1, 1)
    }),
    ("conv_transpose1d", |n| {
        ones(&[1, 1, 3]).conv_transpose1d(&ones(&[1, 1, 2]), n, n, n, n, 1)
    }),
    ("conv_transpose1d with a stride", |n| {
        ones(&[1, 1, 3]).conv_transpose1d(&ones(&[1, 1, 2]), 0, 0, n, 1, 1)
    }),
    ("conv_transpose2d", |n| {
        ones(&[1, 1, 3, 3]).conv_transpose2d(&ones(&[1, 1, 2, 2]), 1, n, 2, n)
    }),
    ("index_select", |n| {
        let ids = Tensor::zeros(n, DType::U32, &CPU)?;
        ones(&[2, 1 << 30]).index_select(&ids, 0)
    }),
    ("mean_all", |n| ones(&[1]).broadcast_as(n)?.mean_all()),
    ("var", |n| ones(&[1, 1]).broadcast_as((n, 2))?.var(0)),
    ("flatten", |n| {
        ones(&[1, 1, 0]).broadcast_as((n, n, 0))?.flatten_to(1)
    }),
    ("a cache", |n| {
        let mut cache = Cache::new(0, usize::MAX);
        let long = ones(&[1]).broadcast_as(n)?;
        cache.append(&long)?;
        cache.append(&long)?;
        Ok(long)
    }),
    ("elements", |n| {
        let all = ones(&[1]).broadcast_as(n)?.to_vec1::<f32>()?;
        Tensor::new(all.len() as i64, &CPU)
    }),
];

#[test]
fn any_size_is_a_tensor_of_it_or_an_error_at_once() {
    for (name, make) in ALL {
        for n in HUGE {
            let start = std::time::Instant::now();
            if let Ok(made) = make(n) {
                let all = made
                    .dims()
                    .iter()
                    .try_fold(1usize, |all, d| all.checked_mul(*d));
                assert!(
                    all.is_some_and(|all| all <= 1 << 48),
                    "{name} of {n}: {made:?}"
                );
            }
            assert!(
                start.elapsed().as_secs() < 5,
                "{name} of {n}: {:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn refusals_name_the_size_and_the_most() {
    let expect = |made: Result<Tensor>, words: &[&str]| {
        let text = made.unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    };
    let huge = 1usize << 49;
    expect(
        ones(&[1]).repeat(huge),
        &["562949953421312", "281474976710656"],
    );
    expect(
        Tensor::zeros(huge, DType::F32, &CPU),
        &["[562949953421312]", "281474976710656"],
    );
    expect(
        build_causal_mask(1 << 20, 0, &CPU),
        &["1099511627776", "1073741824"],
    );
    expect(
        ones(&[1, 1, 3]).interpolate1d(1 << 25),
        &["33554432", "16777216"],
    );
    expect(
        Tensor::arange_step(0f32, f32::INFINITY, 0.5, &CPU),
        &["arange", "1073741824"],
    );
}

#[test]
fn repeats_are_the_same_joined_or_as_a_view() {
    for n in [2usize, 64, 65, 200] {
        let all = Tensor::new(&[[1f32, 2.], [3., 4.]], &CPU)
            .unwrap()
            .repeat((1, n))
            .unwrap();
        assert_eq!(all.dims(), [2, 2 * n]);
        let rows = all.to_vec2::<f32>().unwrap();
        assert!(rows[1].chunks(2).all(|pair| pair == [3., 4.]), "{n}");
    }
    let none = Tensor::new(&[[1f32, 2.]], &CPU)
        .unwrap()
        .repeat((0, 1))
        .unwrap();
    assert_eq!(none.dims(), [0, 2]);
}

#[test]
fn a_range_of_large_floats_is_what_floats_make_it() {
    let big = 1e30f64;
    let far = Tensor::arange_step(big, big + 3e15, 1e15, &CPU);
    // candle's f64 is no dtype of programs; an f32 range there has equal neighbours.
    assert!(far.is_err());
    let range = Tensor::arange_step(1e20f32, 1.00001e20, 5e14, &CPU).unwrap();
    assert_eq!(range.to_vec1::<f32>().unwrap()[0], 1e20);
}

#[test]
fn inputs_and_weights_are_held_to_the_same_bound() {
    let error = trace_step(&[("n", 1, 4)], |call, _| {
        Ok(vec![call.input("x", (usize::MAX, 2), DType::F32)?])
    });
    assert!(error.unwrap_err().to_string().contains("too large"));
    let error = weights()
        .get_unchecked("w1000000000x1000000000")
        .unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}
