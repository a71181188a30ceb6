//! Products that the copy engine feeds: their maps, and what is launched where none can be made.
//!
//! Both have the same bits, so which of them runs may depend on where operands lie. The one
//! without maps is assembled when it is first needed, which with operands from pools is never.

use super::maps::{Places, encode, shown};
use super::modules::Modules;
use super::part::Part;
use crate::Error;
use crate::cuda::driver::Boxes;
use std::sync::{Arc, OnceLock};
use trt_kernel::Kernel;
use trt_kernel::ptx::{Emitted, MapParam, TensorMap};

/// What a part with tensor maps has beside its entries.
#[derive(Debug)]
pub(in crate::cuda) struct Fed {
    maps: Vec<TensorMap>,
    kernel: Kernel,
    first: usize,
    unmapped: OnceLock<Box<Part>>,
    modules: Arc<Modules>,
}

impl Fed {
    /// That of a kernel, if it has maps.
    pub fn new(
        modules: &Arc<Modules>,
        kernel: &Kernel,
        first: usize,
        emitted: &Emitted,
    ) -> Option<Fed> {
        (!emitted.maps.is_empty()).then(|| Fed {
            maps: emitted.maps.clone(),
            kernel: kernel.clone(),
            first,
            unmapped: OnceLock::new(),
            modules: modules.clone(),
        })
    }

    /// The maps of a number of launches; none where they cannot be made.
    pub fn maps(
        &self,
        places: &Places<'_>,
        launches: usize,
    ) -> Result<Option<Vec<MapParam>>, Error> {
        let bound = self.modules.context().bind()?;
        let shown: Option<Vec<Option<Boxes>>> = shown(&self.maps, places);
        let maps = shown
            .zip(self.modules.maps)
            .and_then(|(shown, proof)| encode(&shown, proof, &bound));
        if maps.is_some() {
            self.modules.count_mapped(launches as u64);
        }
        Ok(maps)
    }

    /// The same kernel without maps.
    pub fn unmapped(&self) -> Result<&Part, Error> {
        if let Some(part) = self.unmapped.get() {
            return Ok(part);
        }
        let part = self.modules.unmapped(&self.kernel, self.first)?;
        // Where two come here at once, the second one's is dropped: it has the same text.
        Ok(self.unmapped.get_or_init(|| Box::new(part)))
    }
}
