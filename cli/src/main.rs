//! The binary `candle-trt`; all of it is in the library beside it, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    candle_trt_cli::main()
}
