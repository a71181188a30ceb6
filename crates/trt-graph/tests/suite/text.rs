//! Graphs as text, and the invariants that `verify` holds.

use crate::programs::decoder;
use std::collections::HashMap;
use trt_graph::{Error, Graph, Op, passes, verify};

fn parse(text: &str) -> Result<Graph, Error> {
    Graph::parse(text, &|_| None)
}

#[test]
fn graphs_print_and_parse_without_loss() {
    for (class, slow) in [(0, false), (1, true)] {
        let traced = decoder(class, slow);
        for graph in [passes::optimise(traced.clone()).unwrap().0, traced] {
            let table: HashMap<u64, _> = graph
                .nodes
                .iter()
                .filter_map(|n| match &n.op {
                    Op::Const(l) => Some((l.hash(), l.clone())),
                    _ => None,
                })
                .collect();
            let text = graph.to_string();
            let parsed = Graph::parse(&text, &|hash| table.get(&hash).cloned()).unwrap();
            assert_eq!(parsed, graph, "{text}");
        }
    }
}

#[test]
fn parse_errors_name_the_line() {
    for (text, what) in [
        ("\n# comment\nnonsense", "line 3: not understood"),
        ("%0 = exp %0 : f32[2]", "line 1: %0 is not an earlier node"),
        ("%0 = sigh : f32[2]", "unknown op 'sigh'"),
        ("%0 = float value=x : f32[]", "bad number 'x'"),
        ("%0 = cat : f32[2]", "missing axis="),
        ("%0 = float value=1.0 : f33[]", "f33"),
        ("%0 = float value=1.0 : f32[v99]", "v99"),
        ("floor v1 1 : v0", "1 divides"),
        ("floor v1 : v0", "expected v <by>"),
        (
            "%0 = const data=@00000000000000ff : f32[9]",
            "no constant with hash",
        ),
        ("int v0 n 3..4", "expected min..=max"),
        ("return %0", "not an earlier node"),
    ] {
        let e = parse(text).unwrap_err().to_string();
        assert!(e.starts_with("line ") && e.contains(what), "{text}: {e}");
    }
}

#[test]
fn broken_invariants_are_caught_with_the_node() {
    let x = "input x : f32[2, 3]\n%0 = input index=0 : f32[2, 3]\n";
    for (line, what) in [
        (
            "%1 = exp %0 : f32[3, 2]",
            "operand [2, 3] for result [3, 2]",
        ),
        ("%1 = exp %0 : f16[2, 3]", "operand f32 for result f16"),
        ("%1 = add %0 : f32[2, 3]", "1 inputs, expected 2"),
        ("%1 = reshape %0 : f32[5]", "6 elements become 5"),
        ("%1 = permute %0 axes=0,0 : f32[2, 2]", "axes [0, 0]"),
        ("%1 = broadcast %0 : f32[4, 3]", "[2, 3] to [4, 3]"),
        ("%1 = reduce_sum %0 axis=2 : f32[2, 3]", "axis 2 of [2, 3]"),
        ("%1 = cat %0 %0 axis=0 : f32[5, 3]", "parts sum to 4"),
        ("%1 = append %0 %0 axis=0 : f32[4, 3]", "append"),
        ("%1 = matmul %0 %0 : f32[2, 3]", "[2, 3] x [2, 3]"),
        ("%1 = where %0 %0 %0 : f32[2, 3]", "condition of f32"),
        ("%1 = gt %0 %0 : f32[2, 3]", "compares"),
        ("%1 = input index=1 : f32[2, 3]", "input 1 is not declared"),
        ("%1 = state index=0 : f32[2, 3]", "state 0 is not declared"),
        ("%1 = const data=1.0 : f32[2]", "4 bytes"),
        ("%1 = causal offset=0 : f32[2, 2]", "dtype f32"),
        (
            "%1 = narrow %0 axis=0 start=0 : f32[1, 2]",
            "[1, 2] from [2, 3]",
        ),
    ] {
        let graph = parse(&format!("{x}{line}\nreturn %1")).unwrap();
        let e = verify(&graph, "test").unwrap_err().to_string();
        assert!(
            e.contains("after test: node %1") && e.contains(what),
            "{line}: {e}"
        );
    }
}

#[test]
fn lowering_a_broken_graph_from_text_is_an_error() {
    let text = "input x : f32[2]\n%0 = input index=0 : f32[2]\n%1 = append %0 %0 axis=0 : f32[4]\nreturn %1\n";
    let graph = trt_graph::Graph::parse(text, &|_| None).unwrap();
    let error = trt_graph::lower(&graph).unwrap_err();
    assert!(error.to_string().contains("appends to no state"), "{error}");
}
