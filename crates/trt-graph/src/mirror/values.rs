//! Reading elements while a model is traced: possible where they depend on constants only.

use super::size::COMPUTED;
use super::tensor::{Tensor, kernel_dtype};
use crate::graph::{Graph, Node, NodeId, Op};
use crate::reference::{self, Leaves};
use candle_core::{Result, WithDType, bail};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use trt_kernel::{Dim, Env};

/// The most tensors whose elements are kept while a trace runs.
const KEPT: usize = 8;

/// What was computed, with its elements.
type Computed = VecDeque<(Graph, Rc<Vec<f64>>)>;

thread_local! {
    static KNOWN: RefCell<Option<Computed>> = const { RefCell::new(None) };
}

/// While this lives, elements that were read once are known. A model is loaded for each sample of a
/// trace, and one that reads its tables then (a rotary table of each position) reads the same ones each time.
pub(crate) struct Known {
    outer: Option<Computed>,
}

impl Known {
    pub fn start() -> Known {
        Known {
            outer: KNOWN.replace(Some(VecDeque::new())),
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        KNOWN.set(self.outer.take());
    }
}

/// The elements of a graph's only output; the graph depends on constants only.
#[track_caller]
fn computed(graph: Graph) -> Result<Rc<Vec<f64>>> {
    let known = KNOWN.with_borrow(|k| {
        let same = |k: &Computed| k.iter().find(|(g, _)| *g == graph).map(|(_, e)| e.clone());
        k.as_ref().and_then(same)
    });
    if let Some(elements) = known {
        return Ok(elements);
    }
    let leaves = Leaves {
        env: Env::default(),
        inputs: &[],
        states: &[],
        weight: &|_| None,
    };
    let (out, _) = reference::run(&graph, &leaves).map_err(candle_core::Error::wrap)?;
    let elements = Rc::new(out.into_iter().next().map_or_else(Vec::new, |a| a.data));
    KNOWN.with_borrow_mut(|k| {
        if let Some(k) = k {
            k.truncate(KEPT - 1);
            k.push_front((graph, elements.clone()));
        }
    });
    Ok(elements)
}

impl Tensor {
    /// The elements in row-major order, if they depend on constants only.
    #[track_caller]
    pub(super) fn elements<S: WithDType>(&self, method: &str) -> Result<Vec<S>> {
        if kernel_dtype(S::DTYPE)? != self.kernel_dtype() {
            bail!("{method}::<{:?}> of {self:?}", S::DTYPE);
        }
        let elements = computed(constant_graph(self, method)?)?;
        Ok(elements.iter().copied().map(S::from_f64).collect())
    }

    /// The only element of a scalar that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are axes, the dtype is another, or the elements depend on more than constants.
    #[track_caller]
    pub fn to_scalar<S: WithDType>(&self) -> Result<S> {
        self.dims0()?;
        match self.elements::<S>("to_scalar")?.first() {
            Some(v) => Ok(*v),
            None => bail!("to_scalar: {self:?} has no element"),
        }
    }

    /// As [`Tensor::to_scalar`].
    ///
    /// # Errors
    ///
    /// As [`Tensor::to_scalar`].
    #[track_caller]
    pub fn to_vec0<S: WithDType>(&self) -> Result<S> {
        self.to_scalar()
    }

    /// The elements of a vector that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there is not 1 axis, the dtype is another, or the elements depend on more than constants.
    #[track_caller]
    pub fn to_vec1<S: WithDType>(&self) -> Result<Vec<S>> {
        self.dims1()?;
        self.elements("to_vec1")
    }

    /// The rows of a matrix that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are not 2 axes, the dtype is another, or the elements depend on more than
    /// constants.
    #[track_caller]
    pub fn to_vec2<S: WithDType>(&self) -> Result<Vec<Vec<S>>> {
        let (_, cols) = self.dims2()?;
        let all = self.elements::<S>("to_vec2")?;
        Ok(all.chunks(cols.max(1)).map(<[S]>::to_vec).collect())
    }

    /// The matrices of a rank 3 tensor that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are not 3 axes, the dtype is another, or the elements depend on more than
    /// constants.
    #[track_caller]
    pub fn to_vec3<S: WithDType>(&self) -> Result<Vec<Vec<Vec<S>>>> {
        let (_, rows, cols) = self.dims3()?;
        let all = self.elements::<S>("to_vec3")?;
        let matrix = |m: &[S]| m.chunks(cols.max(1)).map(<[S]>::to_vec).collect();
        Ok(all.chunks((rows * cols).max(1)).map(matrix).collect())
    }
}

#[track_caller]
fn constant_graph(root: &Tensor, method: &str) -> Result<Graph> {
    let mut graph = Graph::default();
    let mut ids: HashMap<u64, NodeId> = HashMap::new();
    let mut computed = 0usize;
    let mut stack = vec![(root.clone(), false)];
    while let Some((t, ready)) = stack.pop() {
        if ids.contains_key(&t.id()) {
            continue;
        }
        if matches!(t.op(), Op::Input(_) | Op::Weight(..) | Op::State(_)) {
            let from = match t.op() {
                Op::Weight(name, _) => format!("weight '{name}'"),
                op => format!("an {} of the call, {t:?}", op.name()),
            };
            bail!(
                "{method} reads the elements of {root:?}, which are not known while a model is traced: they depend on \
                 {from}; keep such decisions outside of the compiled model"
            );
        }
        if !ready {
            stack.push((t.clone(), true));
            stack.extend(t.operands().iter().map(|o| (o.clone(), false)));
            continue;
        }
        computed = computed.saturating_add(t.elem_count());
        if computed > COMPUTED {
            bail!("{method} of {root:?} computes more than {COMPUTED} elements");
        }
        let node = Node {
            op: t.op().clone(),
            inputs: t.operands().iter().map(|o| ids[&o.id()]).collect(),
            shape: t.dims().iter().map(|d| Dim::from(*d)).collect(),
            dtype: t.kernel_dtype(),
        };
        ids.insert(t.id(), graph.push(node));
    }
    graph.outputs.push(ids[&root.id()]);
    Ok(graph)
}
