//! Graphs as text: one line a node, printed and parsed without loss.
//!
//! Constants of up to eight elements are written out; larger ones as `@hash`, which the parser
//! looks up in a table. Golden files and pass tests are in this format.

mod parse;
mod print;
