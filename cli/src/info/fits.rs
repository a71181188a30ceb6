//! What a device holds of a model: the floor, what a session takes, and the budget that it has room for now.

use std::sync::Arc;

use anyhow::Result;
use candle_trt::device::{self, Cuda, Device, Host};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Profile, Request, Weights};
use serde::Serialize;

use crate::{message, model, progress};

/// The longest piece of a prompt that runs in one call.
const LONGEST_CALL: usize = 512;

/// One device. Bytes.
#[derive(Debug, Serialize)]
pub struct Fit {
    /// As `--device` names it.
    pub device: String,
    /// What it calls itself.
    pub name: String,
    pub total_memory_bytes: u64,
    pub free_memory_bytes: Option<u64>,
    /// The least that weights can take.
    pub floor_bytes: Option<u64>,
    /// What all weights take.
    pub full_bytes: Option<u64>,
    /// What calls take beside the weights.
    pub activation_bytes: Option<u64>,
    /// What a session holds.
    pub state_bytes: Option<u64>,
    /// The budget that is there is room for now.
    pub automatic_bytes: Option<u64>,
    /// Whether all weights fit.
    pub whole: Option<bool>,
    /// Why the model does not run there at all.
    pub fails: Option<String>,
}

/// The devices of this machine, or the one that is named; and why the model is of no use on any, if it is.
pub fn all(
    wanted: &str,
    weights: &Arc<Weights>,
    config: &DecoderConfig,
    context: usize,
) -> Result<(Vec<Fit>, Option<String>)> {
    let devices: Vec<(String, Arc<dyn Device>)> = match wanted {
        "all" => here(),
        name => vec![(name.to_string(), device::open(name)?)],
    };
    let bar = progress::spinner("compiling");
    let fits = devices
        .into_iter()
        .map(|(name, device)| fit(name, device, weights, config, context));
    let fits: Vec<Fit> = fits.collect();
    bar.finish_and_clear();
    let fails = fits
        .iter()
        .all(|f| f.fails.is_some())
        .then(|| fits[0].fails.clone());
    Ok((fits, fails.flatten()))
}

/// The host and every CUDA device that can be opened.
fn here() -> Vec<(String, Arc<dyn Device>)> {
    let mut all: Vec<(String, Arc<dyn Device>)> = vec![("host".into(), Arc::new(Host::unified()))];
    let mut number = 0;
    loop {
        match Cuda::new(number) {
            Ok(cuda) => all.push((format!("cuda:{number}"), Arc::new(cuda))),
            Err(why) => {
                tracing::info!("cuda:{number}: {why}");
                return all;
            }
        }
        number += 1;
    }
}

fn fit(
    name: String,
    device: Arc<dyn Device>,
    weights: &Arc<Weights>,
    config: &DecoderConfig,
    context: usize,
) -> Fit {
    let mut fit = Fit {
        device: name,
        name: device.info().name.clone(),
        total_memory_bytes: device.info().total_memory,
        free_memory_bytes: device.free_memory(),
        floor_bytes: None,
        full_bytes: None,
        activation_bytes: None,
        state_bytes: None,
        automatic_bytes: None,
        whole: None,
        fails: None,
    };
    if let Err(why) = compiled(&mut fit, device, weights, config, context) {
        fit.fails = Some(message(&why));
    }
    fit
}

fn compiled(
    fit: &mut Fit,
    device: Arc<dyn Device>,
    weights: &Arc<Weights>,
    config: &DecoderConfig,
    context: usize,
) -> Result<()> {
    let longest = LONGEST_CALL.min(context.saturating_sub(4)).max(2);
    let options = LoadOptions {
        max_positions: Some(context),
    };
    let compiler = Compiler::new(weights.clone());
    let compiler = match model::compute_dtype(weights, &*device) {
        Some(dtype) => compiler.dtype(dtype),
        None => compiler,
    };
    let engine = compiler
        .shared_device(device)
        .profile(Profile::decoder(context, longest)?)
        .budget(Request::Minimum)
        .compile(|vb| Llama::load_with(vb, config, &options))?;
    let (floor, full) = (engine.minimum_device_budget(), engine.total_device_budget());
    fit.floor_bytes = Some(floor);
    fit.full_bytes = Some(full);
    fit.activation_bytes = Some(engine.memory().activations);
    let session = engine.session()?;
    fit.state_bytes = Some(engine.memory().states);
    let automatic = engine.automatic_device_budget();
    drop(session);
    fit.automatic_bytes = Some(automatic);
    fit.whole = Some(automatic >= full);
    if automatic < floor {
        fit.fails = Some(format!(
            "there is room for {automatic} bytes of weights, and the floor is {floor}"
        ));
    }
    Ok(())
}
