//! Reading elements while a model is traced: possible where they depend on constants only.

use super::size::COMPUTED;
use super::tensor::{Tensor, kernel_dtype};
use crate::graph::{Graph, Node, NodeId, Op};
use crate::reference::{self, Leaves};
use candle_core::{Result, WithDType, bail};
use std::collections::HashMap;
use trt_kernel::{Dim, Env};

impl Tensor {
    /// The elements in row-major order, if they depend on constants only.
    fn elements<S: WithDType>(&self) -> Result<Vec<S>> {
        if kernel_dtype(S::DTYPE)? != self.kernel_dtype() {
            bail!(
                "unexpected dtype, expected: {:?}, got: {:?}",
                S::DTYPE,
                self.dtype()
            );
        }
        let graph = constant_graph(self)?;
        let leaves = Leaves {
            env: Env::default(),
            inputs: &[],
            states: &[],
            weight: &|_| None,
        };
        let (out, _) = reference::run(&graph, &leaves).map_err(candle_core::Error::wrap)?;
        Ok(out
            .into_iter()
            .flat_map(|a| a.data)
            .map(S::from_f64)
            .collect())
    }

    /// The only element of a scalar that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are axes, the dtype is another, or the elements depend on more than constants.
    pub fn to_scalar<S: WithDType>(&self) -> Result<S> {
        self.dims0()?;
        match self.elements::<S>()?.first() {
            Some(v) => Ok(*v),
            None => bail!("to_scalar: no element"),
        }
    }

    /// As [`Tensor::to_scalar`].
    ///
    /// # Errors
    ///
    /// As [`Tensor::to_scalar`].
    pub fn to_vec0<S: WithDType>(&self) -> Result<S> {
        self.to_scalar()
    }

    /// The elements of a vector that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there is not 1 axis, the dtype is another, or the elements depend on more than constants.
    pub fn to_vec1<S: WithDType>(&self) -> Result<Vec<S>> {
        self.dims1()?;
        self.elements()
    }

    /// The rows of a matrix that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are not 2 axes, the dtype is another, or the elements depend on more than
    /// constants.
    pub fn to_vec2<S: WithDType>(&self) -> Result<Vec<Vec<S>>> {
        let (_, cols) = self.dims2()?;
        let all = self.elements::<S>()?;
        Ok(all.chunks(cols.max(1)).map(<[S]>::to_vec).collect())
    }

    /// The matrices of a rank 3 tensor that depends on constants only.
    ///
    /// # Errors
    ///
    /// If there are not 3 axes, the dtype is another, or the elements depend on more than
    /// constants.
    pub fn to_vec3<S: WithDType>(&self) -> Result<Vec<Vec<Vec<S>>>> {
        let (_, rows, cols) = self.dims3()?;
        let all = self.elements::<S>()?;
        let matrix = |m: &[S]| m.chunks(cols.max(1)).map(<[S]>::to_vec).collect();
        Ok(all.chunks((rows * cols).max(1)).map(matrix).collect())
    }
}

fn constant_graph(root: &Tensor) -> Result<Graph> {
    let mut graph = Graph::default();
    let mut ids: HashMap<u64, NodeId> = HashMap::new();
    let mut computed = 0usize;
    let mut stack = vec![(root.clone(), false)];
    while let Some((t, ready)) = stack.pop() {
        if ids.contains_key(&t.id()) {
            continue;
        }
        if matches!(t.op(), Op::Input(_) | Op::Weight(_) | Op::State(_)) {
            bail!(
                "elements of {t:?} are not known while a model is traced: it depends on {}; keep such \
                 decisions outside of the compiled model",
                t.op().name()
            );
        }
        if !ready {
            stack.push((t.clone(), true));
            stack.extend(t.operands().iter().map(|o| (o.clone(), false)));
            continue;
        }
        computed = computed.saturating_add(t.elem_count());
        if computed > COMPUTED {
            bail!("reading elements of {root:?} computes more than {COMPUTED} elements");
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
