//! Devices by name, as command lines give them.

use crate::{Cuda, Device, Error, Host};
use std::str::FromStr;
use std::sync::Arc;

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The first CUDA device, else the host.
    Auto,
    /// [`Host::unified`].
    Host,
    /// [`Host::discrete`].
    HostDiscrete,
    /// A CUDA device by its number.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Choice, Error> {
        let unknown = || Error::UnknownDevice { name: name.into() };
        match name {
            "auto" => Ok(Choice::Auto),
            "host" => Ok(Choice::Host),
            "host-discrete" => Ok(Choice::HostDiscrete),
            "cuda" => Ok(Choice::Cuda(0)),
            _ => {
                let number = name.strip_prefix("cuda:").ok_or_else(unknown)?;
                Ok(Choice::Cuda(number.parse().map_err(|_| unknown())?))
            }
        }
    }
}

/// Opens a device: `auto` (the first CUDA device, else the host), `host` (weights are used in
/// place), `host-discrete` (weights are copied as to a GPU), `cuda` or `cuda:N`.
pub fn open(name: &str) -> Result<Arc<dyn Device>, Error> {
    Ok(match name.parse()? {
        Choice::Auto => match Cuda::new(0) {
            Ok(cuda) => Arc::new(cuda),
            Err(why) => {
                tracing::info!(%why, "no CUDA device; running on the host");
                Arc::new(Host::unified())
            }
        },
        Choice::Host => Arc::new(Host::unified()),
        Choice::HostDiscrete => Arc::new(Host::discrete()),
        Choice::Cuda(number) => Arc::new(Cuda::new(number)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!("cuda".parse::<Choice>().unwrap(), Choice::Cuda(0));
        assert_eq!("cuda:3".parse::<Choice>().unwrap(), Choice::Cuda(3));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "Host", "cuda:0 "] {
            let error = wrong.parse::<Choice>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
    }

    #[test]
    fn the_host_opens_everywhere_and_auto_finds_a_device() {
        for name in ["host", "host-discrete", "auto"] {
            assert!(!open(name).unwrap().info().name.is_empty());
        }
    }
}
