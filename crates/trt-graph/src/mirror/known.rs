//! What the elements of a tensor are while a model is traced.
//!
//! They are known if they depend on constants and on small weights only. Constants are what the model's code makes; values
//! of weights come from the source of the trace, which is asked for no others, so it can say what was read: what was
//! compiled holds for these values alone. The reference computes what lies between.

use super::candle_nn::{VarBuilder, WeightSource};
use super::size::{COMPUTED, READ};
use super::tensor::Tensor;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::reference::{self, Array, Leaves, decode};
use candle_core::{Result, bail};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use trt_kernel::{Dim, Encoding, Env};

/// The most tensors whose elements are kept while a trace runs.
const KEPT: usize = 8;

/// What a running trace knows.
struct Knowledge {
    source: Arc<dyn WeightSource>,
    /// What was computed, with its elements.
    computed: VecDeque<(Graph, Rc<Vec<f64>>)>,
}

thread_local! {
    static KNOWN: RefCell<Option<Knowledge>> = const { RefCell::new(None) };
}

/// While this lives, values of weights can be read, and elements that were read once are known. A model is loaded for
/// each sample of a trace, and one that reads its tables then (a rotary table of each position) reads the same ones
/// each time.
pub(crate) struct Known {
    outer: Option<Knowledge>,
}

impl Known {
    pub fn start(vb: &VarBuilder<'_>) -> Known {
        let fresh = Knowledge {
            source: vb.source().clone(),
            computed: VecDeque::new(),
        };
        Known {
            outer: KNOWN.replace(Some(fresh)),
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        KNOWN.set(self.outer.take());
    }
}

/// The elements of a tensor in row-major order; `method` is what asks for them.
#[track_caller]
pub(super) fn elements(of: &Tensor, method: &str) -> Result<Rc<Vec<f64>>> {
    let Behind { graph, weights } = Behind::of(of, method)?;
    let (source, known) = KNOWN.with_borrow(|k| {
        let Some(k) = k else { return (None, None) };
        let same = k.computed.iter().find(|(g, _)| *g == graph);
        (Some(k.source.clone()), same.map(|(_, e)| e.clone()))
    });
    if let Some(elements) = known {
        return Ok(elements);
    }
    let mut values = HashMap::new();
    for weight in &weights {
        let Op::Weight(name, encoding) = weight.op() else {
            continue;
        };
        let bytes = source.as_ref().and_then(|s| s.bytes(name));
        let array = bytes.and_then(|b| decoded(&b, *encoding, weight.dims()));
        let Some(array) = array else {
            bail!(
                "{method} reads {of:?}, which depends on weight '{name}', and no values of it are at hand"
            )
        };
        values.insert(name.clone(), array);
    }
    let leaves = Leaves {
        env: Env::default(),
        inputs: &[],
        states: &[],
        weight: &|name| values.get(name).cloned(),
    };
    let (out, _) = reference::run(&graph, &leaves).map_err(candle_core::Error::wrap)?;
    let elements = Rc::new(out.into_iter().next().map_or_else(Vec::new, |a| a.data));
    KNOWN.with_borrow_mut(|k| {
        if let Some(k) = k {
            k.computed.truncate(KEPT - 1);
            k.computed.push_front((graph, elements.clone()));
        }
    });
    Ok(elements)
}

/// A weight's values; none if it has not as many bytes.
fn decoded(bytes: &[u8], encoding: Encoding, dims: &[usize]) -> Option<Array> {
    let elements = dims.iter().product();
    if encoding.row_bytes(elements) != Some(bytes.len()) {
        return None;
    }
    let data = match encoding {
        Encoding::Plain(dtype) => decode(bytes, dtype),
        // Model code is given what the files have, which is never packed.
        Encoding::Packed(_) | Encoding::Code => return None,
        Encoding::Blocks(block) => {
            let mut values = vec![0.0; elements];
            let places = values.chunks_mut(block.values());
            let blocks = bytes.chunks(block.bytes()).zip(places);
            blocks.for_each(|(bytes, place)| block.decode(bytes, place));
            values.into_iter().map(f64::from).collect()
        }
    };
    Array::new(dims.to_vec(), data).ok()
}

/// What a tensor depends on: a graph of which it is the only output, and the weights in it.
struct Behind {
    graph: Graph,
    weights: Vec<Tensor>,
}

impl Behind {
    #[track_caller]
    fn of(root: &Tensor, method: &str) -> Result<Behind> {
        let mut behind = Behind {
            graph: Graph::default(),
            weights: Vec::new(),
        };
        let mut ids: HashMap<u64, NodeId> = HashMap::new();
        let mut computed = 0usize;
        let mut stack = vec![(root.clone(), false)];
        while let Some((t, ready)) = stack.pop() {
            if ids.contains_key(&t.id()) {
                continue;
            }
            match t.op() {
                Op::Input(_) | Op::State(_) => bail!(
                    "{method} reads the elements of {root:?}, which are not known while a model is traced: they depend \
                     on an {} of the call, {t:?}; keep such decisions outside of the compiled model",
                    t.op().name()
                ),
                Op::Weight(..) => behind.weights.push(t.clone()),
                _ if !ready => {
                    stack.push((t.clone(), true));
                    stack.extend(t.operands().iter().map(|o| (o.clone(), false)));
                    continue;
                }
                _ => computed = computed.saturating_add(t.elem_count()),
            }
            let node = Node {
                op: t.op().clone(),
                inputs: t.operands().iter().map(|o| ids[&o.id()]).collect(),
                shape: t.dims().iter().map(|d| Dim::from(*d)).collect(),
                dtype: t.kernel_dtype(),
            };
            ids.insert(t.id(), behind.graph.push(node));
        }
        // Only once no input is found: a tensor of a call may depend on all weights.
        if computed > COMPUTED {
            bail!("{method} of {root:?} computes more than {COMPUTED} elements");
        }
        let read = behind
            .weights
            .iter()
            .map(bytes)
            .fold(0usize, usize::saturating_add);
        if read > READ {
            let first = behind.weights.iter().max_by_key(|w| bytes(w));
            bail!(
                "{method} of {root:?} depends on {read} bytes of weights, the most of them of {first:?}; values of at \
                 most {READ} bytes become part of a compiled model"
            );
        }
        behind.graph.outputs.push(ids[&root.id()]);
        Ok(behind)
    }
}

/// Bytes of a weight in its files.
fn bytes(weight: &Tensor) -> usize {
    match weight.op() {
        Op::Weight(_, encoding) => encoding
            .row_bytes(weight.elem_count())
            .unwrap_or(usize::MAX),
        _ => 0,
    }
}
