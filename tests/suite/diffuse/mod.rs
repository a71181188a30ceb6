//! The example `diffuse`: its terrain against onnxruntime (`terrain`), and Stable Diffusion against candle (`prompt`).

mod prompt;
mod terrain;

#[path = "../../../examples/diffuse/noise.rs"]
mod noise;
