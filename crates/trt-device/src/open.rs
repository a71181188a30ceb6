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

/// Opens a device: `auto` (the first CUDA device where there is one, else the host), `host`
/// (weights are used in place), `host-discrete` (weights are copied as to a GPU), `cuda` or
/// `cuda:N`.
///
/// # Errors
///
/// A name that stands for none, and what keeps the device from being opened. `auto` is the host
/// where the system has no CUDA driver, where the driver shows no device, and where the first is too
/// old, which is logged as a warning. A driver or a device that is there and fails is the error
/// that it is: `host` runs without it.
pub fn open(name: &str) -> Result<Arc<dyn Device>, Error> {
    Ok(match name.parse()? {
        Choice::Auto => match Cuda::new(0) {
            Ok(cuda) => Arc::new(cuda),
            Err(why) => {
                without_cuda(why)?;
                Arc::new(Host::unified())
            }
        },
        Choice::Host => Arc::new(Host::unified()),
        Choice::HostDiscrete => Arc::new(Host::discrete()),
        Choice::Cuda(number) => Arc::new(Cuda::new(number)?),
    })
}

/// Whether an error says that there is no CUDA to use, rather than that it does not work.
fn without_cuda(why: Error) -> Result<(), Error> {
    match why {
        Error::NoDriver { .. } | Error::NoDevice { .. } => {
            tracing::info!(%why, "no CUDA device; running on the host");
            Ok(())
        }
        Error::OldDevice { .. } => {
            tracing::warn!(%why, "running on the host");
            Ok(())
        }
        broken => Err(broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_host_only_where_there_is_no_cuda_to_use() {
        let reason = || "why".to_string();
        let absent = [
            Error::NoDriver { reason: reason() },
            Error::NoDevice {
                ordinal: 0,
                devices: 0,
            },
            Error::OldDevice {
                device: "old".into(),
                capability: (7, 0),
            },
        ];
        for why in absent {
            without_cuda(why).unwrap();
        }
        let broken = [
            Error::BrokenDriver { reason: reason() },
            Error::OldDriver {
                found: (11, 4),
                needed: (12, 0),
            },
            Error::OutOfMemory {
                device: "full".into(),
                bytes: 1,
                reason: reason(),
            },
        ];
        for why in broken {
            let text = why.to_string();
            assert_eq!(without_cuda(why).unwrap_err().to_string(), text);
        }
    }

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
