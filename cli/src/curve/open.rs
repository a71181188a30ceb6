//! The device of a run, with the bound on locked memory that was asked for.

use super::CurveArgs;
use anyhow::{Result, bail};
use candle_trt::device::{self, Cuda, Device, Transfers};
use candle_trt::{Request, Weights};
use std::sync::Arc;

/// A device, and what only CUDA tells.
pub struct Opened {
    pub device: Arc<dyn Device>,
    cuda: Option<Arc<Cuda>>,
}

impl Opened {
    /// How bytes of files reached the device, if it is one of CUDA.
    pub fn transfers(&self) -> Option<Transfers> {
        self.cuda.as_ref().map(|c| c.transfers())
    }
}

/// Opens what the command line names.
pub fn device(args: &CurveArgs, weights: &Weights) -> Result<Opened> {
    let cuda = match cuda(args, weights)? {
        Some(cuda) => Arc::new(cuda),
        None => {
            let device = device::open(&args.device)?;
            return Ok(Opened { device, cuda: None });
        }
    };
    Ok(Opened {
        device: cuda.clone(),
        cuda: Some(cuda),
    })
}

/// A new device of CUDA, if the command line names one.
pub fn cuda(args: &CurveArgs, weights: &Weights) -> Result<Option<Cuda>> {
    let number = match args.device.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
        None => None,
    };
    Ok(match (number, args.host_budget) {
        (Some(n), Some(budget)) => Some(Cuda::with_host_budget(n, bytes(budget, weights)?)?),
        (Some(n), None) => Some(Cuda::new(n)?),
        (None, Some(_)) => bail!("--host-budget needs --device cuda or cuda:N"),
        (None, None) => None,
    })
}

fn bytes(budget: Request, weights: &Weights) -> Result<u64> {
    let total: usize = weights.files().iter().map(|f| f.map.len()).sum();
    Ok(match budget {
        Request::Bytes(bytes) => bytes,
        Request::Percent(share) => share.of(total as u64),
        Request::Full => u64::MAX,
        Request::Minimum => 0,
        Request::Automatic => bail!("--host-budget is a size or a share"),
    })
}
