//! Model files of `candle_transformers`, ported by their `use` lines and held to candle.
//!
//! None of them is in this repository. The build script finds the sources of candle-transformers among
//! the dependencies and writes each model file of its list again with other `use` lines; `tests/models`
//! compiles what it wrote over symbolic tensors and compares results with candle's own.
