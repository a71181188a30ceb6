//! Texts that are no kernels of the language: their entries take numbers and addresses.

use super::device::limits;
use super::memory::Params;
use super::*;
use trt_kernel::Dim;
use trt_kernel::launch::{EntryLaunch, Extent};
use trt_kernel::ptx::Target;

/// Runs an entry in so many blocks along x. `params` gives the values of its parameters (u64), from
/// the addresses of the buffers, of which those in `written` may be written.
pub fn run(
    (text, target): (&str, Target),
    (entry, block, blocks): (&str, u32, u32),
    call: &Call,
    args: &mut [Buffer],
    params: impl FnOnce(&[u64]) -> Vec<u64>,
) -> Result<(), EmuError> {
    let emitted = Emitted {
        text: text.into(),
        target,
        params: Vec::new(),
        launches: Vec::new(),
        maps: Vec::new(),
        scratch: Dim::from(0),
        limits: Vec::new(),
    };
    let launch = EntryLaunch {
        entry: entry.into(),
        when: Vec::new(),
        grid: [blocks, 1, 1].map(Extent::Fixed),
        block,
        shared: 0,
        mapped: false,
        sums: Vec::new(),
    };
    let mut device = Device::new(&emitted, call, args);
    let run = || {
        let module = text::parse(text)?;
        let program = decode::program(&module, entry)?;
        let values = params(&device.args);
        assert_eq!(values.len(), program.params.len(), "parameters");
        let params = Params {
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            fields: program.params.clone(),
        };
        let grid = [u64::from(blocks), 1, 1];
        limits(target, &launch, &program, grid).map_err(|why| EmuError::text(0, why))?;
        device.blocks(&launch, &program, &params, grid, call.seed)
    };
    run().map_err(|e| e.with_source(text))?;
    device.finish(args, call);
    Ok(())
}
