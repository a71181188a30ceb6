//! The integration tests, in one binary: linking is most of their build time.
#![allow(missing_docs, reason = "tests document themselves by their names")]

mod allocation;
mod allocation_memory;
mod allocation_scopes;
mod blocks;
mod by_host;
mod common;
mod compile_limits;
mod concurrency;
mod conv;
mod device_budget;
mod diffuse;
mod embed;
mod engine;
mod families;
mod files;
mod first_budget;
mod forgotten;
mod gguf;
mod guards;
mod laws;
mod layers;
mod limits;
mod mapped;
mod masks;
mod neighbours;
mod poison;
mod predict;
mod pressure;
mod profiles;
mod recorded;
mod saved;
mod semantics;
mod smollm2;
mod stored_smollm2;
mod stretched_rope;
