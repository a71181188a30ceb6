//! Every mirrored method and function against candle.

cases! { elementwise: |x y z v s p ids i u|
    x.neg(); x.abs(); x.exp(); p.log(); x.sin(); x.cos(); x.tanh(); x.sqr(); p.sqrt(); x.recip();
    x.erf(); x.relu(); x.silu(); x.gelu(); x.gelu_erf(); x.floor(); x.ceil(); x.round(); x.sign();
    (&x * 3.0)?.round(); (&x * 5.0)?.erf(); x.elu(0.7); x.powf(2.0); p.powf(0.3); p.powf(-1.5);
    x.affine(2.0, -1.0); x.affine(1.0, 0.0); i.affine(2.0, 1.0); x.zeros_like(); i.ones_like();
}

cases! { arithmetic: |x y z v s p ids i u|
    &x + &y; &x - &y; &x * &y; &x / &y; x.add(&y); x.sub(&y); x.mul(&y); x.div(&y); x.maximum(&y); x.minimum(&y);
    p.pow(&p); &x + 2.0; &x - 2.0; &x * 2.0; &x / 2.0; 2.0 + &x; 2.0 - &x; 2.0 * &x; 2.0 / &x;
    x.neg()? + &y; &x * y.neg(); x.neg()? / y.abs(); &i + &i; &i - &i; &i * &i; &i + 3.0; &i * 3.0; &i - 1.0; &i / 2.0;
    x.maximum(0.5f32); x.minimum(-0.25f64); x.clamp(-0.5f32, 0.5f32); x.clamp(&y, 0.9f32); i.maximum(2i64);
    &x + &v; &x + &i; x.mul(&z); x.maximum(&v); x.pow(&v);
}

cases! { maxima_of_nan: |x y z v s p ids i u|
    (x.zeros_like()? / x.zeros_like()?)?.maximum(&x); x.maximum(&(x.zeros_like()? / x.zeros_like()?)?);
    (x.zeros_like()? / x.zeros_like()?)?.minimum(&x); x.minimum(&(x.zeros_like()? / x.zeros_like()?)?);
    (x.zeros_like()? / x.zeros_like()?)?.maximum(0.5f32); (x.zeros_like()? / x.zeros_like()?)?.minimum(0.5f32);
    (x.zeros_like()? / x.zeros_like()?)?.relu(); (x.zeros_like()? / x.zeros_like()?)?.clamp(-0.5f32, 0.5f32);
    (x.zeros_like()? / x.zeros_like()?)?.to_dtype(DType::BF16)?.relu();
    x.to_dtype(DType::F16)?.maximum(&(x.zeros_like()? / x.zeros_like()?)?.to_dtype(DType::F16)?);
    (x.zeros_like()? / x.zeros_like()?)?.to_dtype(DType::BF16)?.minimum(&x.to_dtype(DType::BF16)?);
}

cases! { broadcasting: |x y z v s p ids i u|
    x.broadcast_add(&v); x.broadcast_sub(&z); x.broadcast_mul(&s); x.broadcast_div(&v); s.broadcast_sub(&x);
    z.broadcast_mul(&v); v.broadcast_add(&z); x.broadcast_maximum(&z); x.broadcast_minimum(&v); p.broadcast_pow(&p.narrow(0, 0, 1)?);
    x.broadcast_add(&p); x.broadcast_add(&i); z.broadcast_as((2, 3, 4)); z.expand((3, 5)); v.broadcast_left((2, 3));
    z.broadcast_as((3,)); v.broadcast_as((5,)); v.broadcast_as((2, 0, 4)); x.broadcast_as((4, 3, 2)); s.broadcast_as((2, 2));
}

cases! { comparisons: |x y z v s p ids i u|
    x.eq(&x); x.ne(&y); x.lt(&y); x.le(&y); x.gt(&y); x.ge(&y); x.gt(0f32); x.le(0.25f64); i.eq(0i64); u.ne(0u8);
    x.broadcast_eq(&v); x.broadcast_lt(&z); x.broadcast_ge(&s); x.broadcast_ne(&v); x.broadcast_le(&v); x.broadcast_gt(&v);
    x.gt(&v); x.eq(&i); x.gt(&y)?.where_cond(&x, &y); u.where_cond(&p, &p.neg()?); i.where_cond(&p, &p.neg()?);
    u.where_cond(&x, &y); x.where_cond(&x, &y); u.where_cond(&p, &i);
}

cases! { layout: |x y z v s p ids i u|
    x.reshape((6, 4)); x.reshape(((), 4)); x.reshape((2, ())); x.reshape((5, 5)); x.reshape(((), 5)); x.reshape(24);
    x.flatten(0, 1); x.flatten(1, 2); x.flatten_to(1); x.flatten_from(1); x.flatten_all(); s.flatten_all(); x.flatten(0, 3);
    x.flatten_to(D::Minus2); x.flatten(2, 1); x.squeeze(0); z.squeeze(1); z.squeeze(D::Minus1); z.squeeze(2);
    x.unsqueeze(0); x.unsqueeze(3); x.unsqueeze(D::Minus1); x.unsqueeze(4); x.t(); p.t(); v.t();
    x.transpose(0, 2); x.transpose(D::Minus1, D::Minus2); x.transpose(1, 1); x.transpose(0, 3);
    x.permute((2, 0, 1)); x.permute((0, 1)); x.permute((0, 0, 1)); x.permute((0, 1, 3));
    x.narrow(1, 1, 2); x.narrow(D::Minus1, 0, 4); x.narrow(2, 3, 2); x.narrow(3, 0, 1); x.narrow(0, 0, 0);
    x.narrow(0, usize::MAX, 2); x.get(1); x.get(2); s.get(0); x.get_on_dim(2, 3); x.get_on_dim(1, 3);
    Ok(x.chunk(2, 2)?[1].clone()); Ok(x.chunk(2, 1)?[0].clone()); Ok(x.chunk(9, 1)?[2].clone()); Ok(x.chunk(3, D::Minus1)?[2].clone());
    x.contiguous(); x.copy(); Ok(x.detach()); x.pad_with_zeros(1, 1, 2); x.pad_with_zeros(D::Minus1, 0, 0); x.pad_with_zeros(3, 1, 1);
    x.repeat((2, 1, 3)); v.repeat((3, 2)); x.repeat(2); x.repeat((1, 1, 1));
}

cases! { joining: |x y z v s p ids i u|
    Tensor::cat(&[&x, &y], 0); Tensor::cat(&[&x, &y, &x], 1); Tensor::cat(&[&x, &y], D::Minus1); Tensor::cat(&[&x], 3);
    Tensor::cat(&[&x], 0); Tensor::cat(&[&x, &p], 0); Tensor::cat(&[&x, &z.broadcast_as((2, 3, 1))?.contiguous()?], 2);
    Tensor::cat(&[&x, &y.narrow(1, 0, 2)?], 0); Tensor::cat(&[&p, &p.to_dtype(DType::BF16)?], 0); Tensor::cat(&[&x, &y], 3);
    Tensor::cat::<&Tensor, _>(&[], 0); Tensor::stack(&[&x, &y], 0); Tensor::stack(&[&x, &y], 3); Tensor::stack(&[&x, &y], D::Minus1);
    Tensor::stack(&[&x, &p], 0);
}

cases! { reductions: |x y z v s p ids i u|
    x.sum(0); x.sum((0, 2)); x.sum_keepdim(1); x.sum_keepdim((0, 1)); x.sum(D::Minus1); x.sum_all(); x.sum(3);
    x.mean(1); x.mean((1, 2)); x.mean_keepdim(D::Minus1); x.mean_all(); x.mean(4); x.max(0); x.max(D::Minus1); x.max_keepdim(1); x.max_all();
    x.min(2); x.min_keepdim(0); x.min_all(); x.max(3); x.var(1); x.var_keepdim(D::Minus1); x.var(3); x.log_sum_exp(1);
    x.log_sum_exp((0, 2)); x.log_sum_exp(3); x.sum(()); x.sum((1, 1));
}

cases! { products: |x y z v s p ids i u|
    x.matmul(&y.t()?); x.t()?.matmul(&y); x.matmul(&y); p.matmul(&p.t()?); v.matmul(&v); p.matmul(&x);
    x.broadcast_matmul(&p.t()?.narrow(0, 0, 1)?.broadcast_as((4, 2))?); p.broadcast_matmul(&x); x.broadcast_matmul(&y); x.broadcast_matmul(&v); i.matmul(&i.t()?);
    p.matmul(&p.t()?.to_dtype(DType::F16)?);
}

cases! { picking: |x y z v s p ids i u|
    x.index_select(&ids, 1); x.index_select(&ids, 2); x.index_select(&ids, D::Minus1); x.index_select(&p, 0); x.index_select(&v, 0);
    x.index_select(&ids, 3); p.t()?.contiguous()?.embedding(&ids); x.embedding(&ids); p.t()?.embedding(&i); x.index_select(&ids, 0);
    x.i(1); x.i(2); x.i((.., 1)); x.i((.., 1..)); x.i((0, ..2)); x.i((.., .., 1..=2)); x.i((0, 1, 2)); x.i((0, 1, 2, 3)); x.i((.., ..=1, 0));
    x.i((.., &ids)); x.i((.., .., 5)); x.i(..); s.i(0); x.i((.., 2..7));
}

cases! { building: |x y z v s p ids i u|
    Tensor::zeros((2, 3), DType::F32, x.device()); Tensor::ones(4, DType::U32, x.device()); Tensor::full(1.5f32, (2, 2), x.device());
    Tensor::full(7i64, (), x.device()); Tensor::arange(0u32, 5, x.device()); Tensor::arange(3i64, -2, x.device()); Tensor::arange(0f32, 2.5, x.device());
    Tensor::arange_step(0f32, 1.0, 0.25, x.device()); Tensor::arange_step(5i64, 0, -2, x.device()); Tensor::arange_step(0u32, 5, 0, x.device());
    Tensor::from_slice(&[1f32, 2., 3., 4.], (2, 2), x.device()); Tensor::from_vec(vec![1u8, 2, 3], (2, 2), x.device());
    Tensor::from_vec(vec![1u8, 2, 3, 4], (2, ()), x.device()); Tensor::from_iter(0..4u32, x.device()); Tensor::new(2.5f32, x.device());
    Tensor::new(&[[1u32, 2], [3, 4]], x.device()); Tensor::tril2(3, DType::U8, x.device()); Tensor::triu2(3, DType::F32, x.device());
}

cases! { conversion: |x y z v s p ids i u|
    x.to_dtype(DType::BF16); x.to_dtype(DType::F16)?.to_dtype(DType::F32); (&x * 10.0)?.to_dtype(DType::I64); (&x * 300.0)?.to_dtype(DType::U8);
    (&x * 300.0)?.to_dtype(DType::U32); i.to_dtype(DType::F32); i.to_dtype(DType::U8); i.to_dtype(DType::U32); u.to_dtype(DType::I64); x.to_device(x.device());
    x.to_dtype(DType::BF16)?.sqr(); x.to_dtype(DType::F16)? + y.to_dtype(DType::F16)?; x.apply(&|t: &Tensor| t.neg());
}

cases! { functions: |x y z v s p ids i u|
    nn::ops::silu(&x); nn::ops::sigmoid(&x); nn::ops::swiglu(&x); nn::ops::hard_sigmoid(&(&x * 6.0)?); nn::ops::leaky_relu(&x, 0.1);
    nn::ops::softmax(&x, 1); nn::ops::softmax(&x, D::Minus1); nn::ops::softmax(&x, 3); nn::ops::softmax_last_dim(&x); nn::ops::log_softmax(&x, 1);
    nn::ops::rms_norm(&x, &v, 1e-5); nn::ops::layer_norm(&x, &v, &v, 1e-5); nn::ops::rms_norm(&x, &p, 1e-5);
    nn::Linear::new(p.clone(), None).forward(&x.transpose(1, 2)?.contiguous()?); nn::Linear::new(p.clone(), Some(p.narrow(1, 0, 1)?.squeeze(1)?)).forward(&p);
    nn::Linear::new(p.clone(), None).forward(&x); nn::Embedding::new(p.t()?.contiguous()?, 2).forward(&ids); nn::Embedding::new(p.t()?.contiguous()?, 2).forward(&ids.reshape((1, 3))?);
    nn::LayerNorm::new(v.clone(), v.clone(), 1e-5).forward(&x); nn::LayerNorm::new_no_bias(v.clone(), 1e-5).forward(&x); nn::LayerNorm::rms_norm(v.clone(), 1e-5).forward(&x);
    nn::RmsNorm::new(v.clone(), 1e-6).forward(&x); nn::LayerNorm::new_no_bias(x.ones_like()?, 1e-6).forward(&x); nn::LayerNorm::rms_norm(y.clone(), 1e-5).forward(&x);
    nn::LayerNorm::new_no_bias(v.reshape((1, 4))?, 1e-6).forward(&x); nn::LayerNorm::new(x.clone(), v.clone(), 1e-5).forward(&x); nn::RmsNorm::new(p.clone(), 1e-6).forward(&x);
    nn::Activation::Gelu.forward(&x); nn::Activation::NewGelu.forward(&x); nn::Activation::Relu.forward(&x); nn::Activation::Relu2.forward(&x);
    nn::Activation::Relu6.forward(&(&x * 9.0)?); nn::Activation::Silu.forward(&x); nn::Activation::Sigmoid.forward(&x); nn::Activation::HardSigmoid.forward(&(&x * 6.0)?);
    nn::Activation::Swiglu.forward(&x); nn::Activation::Swish.forward(&x); nn::Activation::HardSwish.forward(&(&x * 6.0)?); nn::Activation::Elu(0.5).forward(&x);
    nn::Activation::LeakyRelu(0.2).forward(&x); nn::Activation::GeluPytorchTanh.forward(&x);
}

cases! { resizing: |x y z v s p ids i u|
    x.reshape((1, 2, 3, 4))?.avg_pool2d(2); x.reshape((1, 2, 3, 4))?.avg_pool2d((3, 1)); x.reshape((1, 1, 4, 6))?.avg_pool2d_with_stride((2, 3), (1, 2));
    x.reshape((1, 2, 3, 4))?.max_pool2d(2); x.reshape((1, 1, 4, 6))?.max_pool2d_with_stride(3, 1); x.reshape((1, 2, 3, 4))?.max_pool2d(4); x.max_pool2d(2);
    Tensor::arange(0f32, 200., x.device())?.reshape((1, 1, 10, 20))?.avg_pool2d(9); Tensor::arange(0f32, 200., x.device())?.reshape((1, 2, 10, 10))?.max_pool2d(9);
    x.upsample_nearest1d(8); x.upsample_nearest1d(6); x.interpolate1d(3); x.interpolate1d(4); x.reshape((1, 2, 3, 4))?.interpolate1d(4);
    x.reshape((1, 2, 3, 4))?.upsample_nearest2d(6, 12); x.reshape((1, 2, 3, 4))?.interpolate2d(5, 8); x.reshape((1, 2, 3, 4))?.upsample_nearest2d(2, 3); x.interpolate2d(6, 8);
    Tensor::arange(0f32, 49., x.device())?.reshape((1, 1, 49))?.upsample_nearest1d(49 * 3);
}

// Without padding, candle's CPU gets the images after the first wrong: those cases have one.
cases! { transposed_convolutions: |x y z v s p ids i u|
    x.narrow(0, 0, 1)?.conv_transpose1d(&y.reshape((3, 2, 4))?, 0, 0, 1, 1, 1); x.narrow(0, 1, 1)?.contiguous()?.conv_transpose1d(&y.reshape((3, 2, 4))?, 0, 0, 1, 1, 1); x.conv_transpose1d(&y.reshape((3, 4, 2))?, 1, 0, 2, 1, 1); x.conv_transpose1d(&y.reshape((3, 4, 2))?, 1, 1, 3, 2, 1);
    x.conv_transpose1d(&y.reshape((3, 2, 4))?, 0, 0, 2, 1, 3); x.reshape((1, 4, 6))?.conv_transpose1d(&y.reshape((4, 2, 3))?, 1, 1, 2, 1, 2); x.conv_transpose1d(&y, 0, 0, 1, 1, 1); x.conv_transpose1d(&y.reshape((3, 2, 4))?, 0, 0, 1, 1, 2);
    x.reshape((1, 2, 3, 4))?.conv_transpose2d(&y.reshape((2, 3, 2, 2))?, 0, 0, 2, 1); x.reshape((2, 2, 3, 2))?.conv_transpose2d(&y.reshape((2, 1, 4, 3))?, 1, 1, 3, 2);
    x.reshape((2, 2, 3, 2))?.conv_transpose2d(&y.reshape((2, 1, 3, 4))?, 1, 0, 1, 1); x.reshape((1, 2, 3, 4))?.conv_transpose2d(&y.reshape((3, 2, 2, 2))?, 0, 0, 2, 1);
    nn::ConvTranspose1d::new(y.reshape((3, 2, 4))?, Some(p.get(0)?.narrow(0, 0, 2)?), nn::ConvTranspose1dConfig { stride: 2, ..Default::default() }).forward(&x.narrow(0, 0, 1)?);
    nn::ConvTranspose2d::new(y.reshape((2, 3, 2, 2))?, Some(p.get(1)?), nn::ConvTranspose2dConfig { padding: 1, ..Default::default() }).forward(&x.reshape((1, 2, 3, 4))?);
}

cases! { layers_of_images: |x y z v s p ids i u|
    x.conv1d(&y, 0, 1, 1, 1); x.conv1d(&y.reshape((8, 1, 3))?, 1, 1, 1, 1); x.conv2d(&y, 0, 1, 1, 1); x.conv1d(&y.reshape((3, 2, 4))?, 0, 1, 1, 2); x.conv1d(&y.to_dtype(DType::F16)?, 1, 1, 1, 1);
    nn::Conv1d::new(y.clone(), Some(p.narrow(0, 0, 1)?.narrow(1, 0, 2)?.squeeze(0)?), nn::Conv1dConfig { padding: 2, stride: 2, ..Default::default() }).forward(&x);
    nn::Conv2d::new(y.reshape((6, 1, 2, 2))?, None, nn::Conv2dConfig { padding: 1, groups: 2, ..Default::default() }).forward(&x.reshape((1, 2, 3, 4))?);
    nn::GroupNorm::new(p.get(0)?, p.get(1)?, 3, 3, 1e-5)?.forward(&x); nn::GroupNorm::new(v.clone(), v.clone(), 4, 2, 1e-3)?.forward(&x.reshape((1, 4, 3, 2))?);
    nn::GroupNorm::new(p.get(0)?, p.get(1)?, 3, 1, 1e-5)?.forward(&x.to_dtype(DType::F32)?.reshape((2, 3, 2, 2))?); nn::GroupNorm::new(v.clone(), v.clone(), 4, 2, 1e-3)?.forward(&x);
    Ok(x.clone()).and_then(|x| nn::GroupNorm::new(v.clone(), v.clone(), 4, 3, 1e-3)?.forward(&x)); nn::GroupNorm::new(v.clone(), v.clone(), 4, 2, 1e-3)?.forward(&p);
    nn::BatchNorm::new(3, p.get(0)?, p.get(1)?, p.get(1)?, p.get(0)?, 1e-5)?.forward_t(&x, false); nn::BatchNorm::new_no_bias(3, p.get(0)?, p.get(1)?, 1e-3)?.forward_t(&x.reshape((2, 3, 2, 2))?, false);
    nn::BatchNorm::new_no_bias(4, p.get(0)?, p.get(1)?, 1e-3)?.forward_t(&x, false); nn::BatchNorm::new_no_bias(3, p.get(0)?, p.get(1)?, -1.0)?.forward_t(&x, false);
}

cases! { rotary: |x y z v s p ids i u|
    nn::rotary_emb::rope(&x.unsqueeze(0)?, &p.t()?.contiguous()?, &p.t()?.contiguous()?);
    nn::rotary_emb::rope_slow(&x.unsqueeze(0)?, &p.t()?.contiguous()?, &p.t()?.contiguous()?);
    nn::rotary_emb::rope(&x, &p, &p); nn::rotary_emb::rope(&x.unsqueeze(0)?, &p, &p);
    nn::rotary_emb::rope(&x.unsqueeze(0)?.to_dtype(DType::F16)?, &p.t()?.contiguous()?, &p.t()?.contiguous()?);
    nn::rotary_emb::rope_i(&x.unsqueeze(0)?, &p.t()?.contiguous()?, &p.t()?.contiguous()?); nn::rotary_emb::rope_i(&x.unsqueeze(0)?, &p, &p);
    nn::rotary_emb::rope_i_slow(&x.unsqueeze(0)?, &p.t()?.contiguous()?, &p.t()?.contiguous()?);
    nn::rotary_emb::rope_thd(&x.reshape((1, 3, 2, 4))?, &p.t()?.contiguous()?, &p.t()?.contiguous()?);
}

cases! { attention_of_a_cpu: |x y z v s p ids i u|
    nn::attention::flash_attn::<f32>(&x.unsqueeze(0)?, &y.unsqueeze(0)?, &x.unsqueeze(0)?, 0.5, nn::attention::AttnMask::None, None, None);
    nn::attention::flash_attn::<f32>(&x.unsqueeze(0)?, &y.unsqueeze(0)?, &x.unsqueeze(0)?, 0.5, nn::attention::AttnMask::causal(), None, Some(2.0));
    nn::attention::flash_attn::<f32>(&x.reshape((1, 2, 3, 4))?, &y.reshape((1, 6, 1, 4))?, &x.reshape((1, 6, 1, 4))?, 2.0, nn::attention::AttnMask::causal_with_offset(3), None, None);
    nn::kv_cache::InterleavedKvCache::new(4).append(&x.unsqueeze(0)?, &y.unsqueeze(0)?);
}

cases! { sums_by_ids: |x y z v s p ids i u|
    x.index_add(&ids, &y, 1); p.t()?.contiguous()?.index_add(&ids, &p.t()?.contiguous()?, 0); x.index_add(&ids, &y, 2); x.index_add(&ids, &y, 3);
    x.index_add(&ids.affine(0.0, 1.0)?, &y, 1); x.index_add(&ids, &y.to_dtype(DType::F16)?, 1); x.index_add(&p, &y, 1); x.index_add(&ids, &p, 1);
    x.narrow(1, 0, 2)?.contiguous()?.index_add(&ids.affine(0.5, 0.0)?.to_dtype(DType::U32)?, &y, 1); x.to_dtype(DType::BF16)?.index_add(&ids, &y.to_dtype(DType::BF16)?, 1);
}

cases! { integers_that_pick: |x y z v s p ids i u|
    p.gather(&Tensor::new(&[[2u32, 0], [1, 1]], &core::Device::Cpu)?, 1); p.gather(&Tensor::new(&[[1i64, 0, 1]], &core::Device::Cpu)?, 0);
    p.gather(&Tensor::new(&[[1u8], [2]], &core::Device::Cpu)?, D::Minus1); i.gather(&Tensor::new(&[[2u32, 0, 2, 1]], &core::Device::Cpu)?, 1);
    p.gather(&Tensor::new(&[[u32::MAX, 0], [1, u32::MAX]], &core::Device::Cpu)?, 1); u.gather(&Tensor::new(&[[u8::MAX], [2]], &core::Device::Cpu)?, 1);
    p.gather(&Tensor::new(&[[i64::MAX, 0], [1, 1]], &core::Device::Cpu)?, 1); p.gather(&Tensor::new(&[[3u32], [0]], &core::Device::Cpu)?, 1);
    p.gather(&Tensor::new(&[[-1i64], [0]], &core::Device::Cpu)?, 1); p.gather(&Tensor::new(&[[0u32], [0], [0]], &core::Device::Cpu)?, 1);
    p.gather(&ids, 0); p.gather(&p, 0); p.gather(&u, 3); x.gather(&x.argmax_keepdim(2)?, 2); p.to_dtype(DType::BF16)?.gather(&p.arg_sort_last_dim(false)?, 1);
    i.index_select(&ids, 1); u.index_select(&ids, 1); u.index_select(&ids, 0);
}

cases! { places_of_elements: |x y z v s p ids i u|
    x.argmax(0); x.argmax(1); x.argmax(D::Minus1); x.argmin(0); x.argmin(2); x.argmax_keepdim(1); x.argmin_keepdim(D::Minus1); s.argmax(0); x.argmax(3);
    i.argmax(1); i.argmin(0); u.argmin(1); u.argmax(0); x.to_dtype(DType::BF16)?.argmax(2); x.to_dtype(DType::F16)?.argmin(1); x.narrow(1, 0, 0)?.argmax(0);
    Tensor::new(&[[f32::NAN, 1.0, 2.0], [3.0, f32::NAN, 3.0], [f32::NAN, f32::NAN, f32::NAN]], &core::Device::Cpu)?.argmax(1);
    Tensor::new(&[[f32::NAN, 1.0, 2.0], [3.0, f32::NAN, 3.0], [f32::NEG_INFINITY; 3]], &core::Device::Cpu)?.argmin(1);
    Tensor::new(&[[f32::NEG_INFINITY, f32::NEG_INFINITY], [f32::NAN, f32::INFINITY]], &core::Device::Cpu)?.argmax(1);
    Tensor::new(&[i64::MIN, i64::MAX, i64::MAX - 1], &core::Device::Cpu)?.argmax(0);
    x.arg_sort_last_dim(true); x.arg_sort_last_dim(false); i.arg_sort_last_dim(true); u.arg_sort_last_dim(false); u.arg_sort_last_dim(true); s.arg_sort_last_dim(true);
    Ok(x.sort_last_dim(true)?.0); Ok(x.sort_last_dim(false)?.0); Ok(i.sort_last_dim(false)?.0); Ok(p.to_dtype(DType::F16)?.sort_last_dim(false)?.1);
}

cases! { integers_that_place: |x y z v s p ids i u|
    p.scatter(&Tensor::new(&[[2u32, 0], [1, 1]], &core::Device::Cpu)?, &p.narrow(1, 1, 2)?.contiguous()?, 1); p.scatter(&Tensor::new(&[[1i64, 0, u32::MAX as i64 + 7]], &core::Device::Cpu)?, &p.narrow(0, 0, 1)?, 0);
    p.scatter(&Tensor::new(&[[1i64, 0, 1], [0, 0, i64::MAX], [1, 1, 0]], &core::Device::Cpu)?, &Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.], [7., 8., 9.]], &core::Device::Cpu)?, 0);
    p.scatter_add(&Tensor::new(&[[1i64, 0, 1], [0, 0, i64::MAX], [1, 1, 0]], &core::Device::Cpu)?, &Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.], [7., 8., 9.]], &core::Device::Cpu)?, 0);
    i.scatter_add(&Tensor::new(&[[2u8, 2, u8::MAX], [1, 0, 2]], &core::Device::Cpu)?, &i, 1); u.scatter_add(&u.zeros_like()?, &u, 1); u.scatter(&u.zeros_like()?, &u, 1);
    p.scatter(&u, &p, 1); p.scatter(&p, &p, 1); p.scatter(&ids, &p, 1); p.scatter_add(&u.zeros_like()?, &i, 1); p.scatter_add(&u.zeros_like()?, &p.narrow(1, 0, 2)?, 1); p.scatter(&u, &p, 2);
    x.index_add(&Tensor::new(&[0u32, u32::MAX, 2], &core::Device::Cpu)?, &y, 1); x.index_add(&Tensor::new(&[0u32, 3, 2], &core::Device::Cpu)?, &y, 1); i.index_add(&ids, &i, 1);
}

cases! { running_sums: |x y z v s p ids i u|
    x.cumsum(0); x.cumsum(1); x.cumsum(D::Minus1); p.cumsum(1); v.cumsum(0); s.cumsum(0); x.cumsum(3);
    i.sum(0); i.sum_keepdim(1); u.max(1); i.min(0); i.max_keepdim(D::Minus1); u.sum(1);
}

#[test]
fn shapes_are_read_as_in_candle() {
    use trt_graph::candle::{D, Device, Tensor};
    let x = Tensor::zeros((2, 3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        (x.dims3().unwrap(), x.rank(), x.elem_count()),
        ((2, 3, 4), 3, 24)
    );
    assert_eq!((x.dim(1).unwrap(), x.dim(D::Minus1).unwrap()), (3, 4));
    assert!(x.dim(3).is_err() && x.dims2().is_err() && x.dims4().is_err() && x.is_contiguous());
    assert_eq!(x.to_vec3::<f32>().unwrap(), vec![vec![vec![0f32; 4]; 3]; 2]);
    assert!(x.to_vec3::<u32>().is_err() && x.to_vec2::<f32>().is_err());
}
