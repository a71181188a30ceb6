//! Which nodes share a kernel.
//!
//! Nodes are visited from the outputs back. A scalar op or reduction joins the kernel that uses
//! it if all its uses are in that one kernel; otherwise its result is stored. A product joins
//! the kernel of what follows it as its *anchor*: the rest becomes its epilogue. Casts, numbers that sizes
//! decide and what kernels generate are cheap enough to be computed in every kernel that uses them.

use crate::graph::{Graph, NodeId, Op};
use std::collections::BTreeMap;
use trt_kernel::Dim;

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A leaf in memory: input, weight, state, constant.
    Leaf,
    /// A layout op.
    View,
    /// Stored by its own kernel.
    Root,
    /// Computed inside the kernel of this root.
    Inside(NodeId),
    /// A fold that the kernel of this root, another fold, computes and stores too.
    Beside(NodeId),
    /// Computed wherever it is used.
    Anywhere,
}

/// The decision for every node.
pub(super) struct Groups {
    pub roles: Vec<Role>,
    /// The product that a root's kernel is the epilogue of.
    pub anchors: BTreeMap<NodeId, NodeId>,
    reduces: BTreeMap<NodeId, Vec<Dim>>,
    several: Vec<NodeId>,
}

impl Groups {
    pub fn new(graph: &Graph, forced: &BTreeMap<NodeId, &'static str>) -> Groups {
        let mut groups = Groups {
            roles: vec![Role::Root; graph.nodes.len()],
            anchors: BTreeMap::new(),
            reduces: BTreeMap::new(),
            several: Vec::new(),
        };
        let users = graph.users();
        let mut is_root = vec![false; graph.nodes.len()];
        graph.roots().for_each(|r| is_root[r.index()] = true);
        for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
            groups.roles[id.index()] = groups.role(
                graph,
                &users,
                id,
                is_root[id.index()],
                forced.contains_key(&id),
            );
        }
        groups.follow_folds(graph, &users);
        groups.fold_together(graph, &users, forced);
        groups
    }

    fn role(
        &mut self,
        graph: &Graph,
        users: &[Vec<NodeId>],
        id: NodeId,
        output: bool,
        forced: bool,
    ) -> Role {
        let node = graph.node(id);
        let op = &node.op;
        let stored = output || forced;
        if matches!(
            op,
            Op::Input(_) | Op::Weight(..) | Op::State(_) | Op::Const(_)
        ) {
            return Role::Leaf;
        }
        if op.is_view() {
            // An output that is a view is copied at the end; a forced one by its own kernel.
            return if forced { Role::Root } else { Role::View };
        }
        if op.is_generated() {
            return if stored { Role::Root } else { Role::Anywhere };
        }
        let scalar = op.is_inlined();
        let reduce = matches!(op, Op::Reduce(..));
        let product = *op == Op::Matmul;
        if stored || !(scalar || reduce || product) {
            return self.open(graph, id);
        }
        if *op == Op::Cast && cheap(graph, node.inputs[0]) || one_number(graph, id, NUMBERS) {
            return Role::Anywhere;
        }
        match self.only_kernel(graph, users, id) {
            Some(root) if scalar => Role::Inside(root),
            Some(root) if reduce && self.admits_reduce(graph, root, id) => Role::Inside(root),
            Some(root) if product && self.admits_anchor(graph, users, root, id) => {
                self.anchors.insert(root, id);
                Role::Inside(root)
            }
            Some(_) => self.open(graph, id),
            None => {
                if scalar {
                    self.several.push(id);
                }
                self.open(graph, id)
            }
        }
    }

    /// Starts a kernel; a reduction fixes its index space.
    fn open(&mut self, graph: &Graph, id: NodeId) -> Role {
        if let Op::Reduce(..) = graph.node(id).op {
            let space = graph.node(graph.node(id).inputs[0]).shape.clone();
            self.reduces.insert(id, space);
        }
        Role::Root
    }

    /// The root of the one kernel that all uses of a node are in.
    fn only_kernel(&self, graph: &Graph, users: &[Vec<NodeId>], id: NodeId) -> Option<NodeId> {
        let mut found = None;
        let mut stack = users[id.index()].clone();
        while let Some(user) = stack.pop() {
            let root = match self.roles[user.index()] {
                Role::View => {
                    stack.extend(&users[user.index()]);
                    if users[user.index()].is_empty() {
                        return None;
                    }
                    continue;
                }
                Role::Inside(root) => root,
                // Templates read operands from memory; only scalar kernels take them in.
                Role::Root
                    if graph.node(user).op.is_inlined()
                        || matches!(graph.node(user).op, Op::Reduce(..)) =>
                {
                    user
                }
                Role::Root | Role::Beside(_) | Role::Leaf | Role::Anywhere => return None,
            };
            if found.is_some_and(|f| f != root) || self.anchors.get(&root) == Some(&user) {
                return None;
            }
            found = Some(root);
        }
        found.filter(|_| !graph.roots().any(|r| self.reaches_root(graph, r, id)))
    }

    /// Whether an output is the node itself seen through views.
    fn reaches_root(&self, graph: &Graph, mut root: NodeId, id: NodeId) -> bool {
        while graph.node(root).op.is_view() {
            root = graph.node(root).inputs[0];
        }
        root == id
    }

    /// Whether a root's kernel folds over its last axis, where the result has one point.
    pub fn is_folded(&self, root: NodeId) -> bool {
        self.reduces.contains_key(&root)
    }

    /// Makes a node the root of what was the kernel of a fold.
    pub(super) fn fold_ends_at(&mut self, root: NodeId, fold: NodeId) {
        if let Some(space) = self.reduces.remove(&fold) {
            self.reduces.insert(root, space);
        }
    }

    /// Whether a root's kernel has folds at all.
    pub fn folds(&self, graph: &Graph, root: NodeId) -> bool {
        let mut all = self.inside(graph, root).chain([root]);
        all.any(|n| matches!(graph.node(n).op, Op::Reduce(..)))
    }

    /// The index space of a root's kernel.
    pub fn space(&self, graph: &Graph, root: NodeId) -> Vec<Dim> {
        self.reduces
            .get(&root)
            .cloned()
            .unwrap_or_else(|| graph.node(root).shape.clone())
    }

    fn admits_reduce(&mut self, graph: &Graph, root: NodeId, id: NodeId) -> bool {
        let Op::Reduce(_, axis) = graph.node(id).op else {
            return false;
        };
        let over = &graph.node(graph.node(id).inputs[0]).shape;
        if axis + 1 != over.len() || self.anchors.contains_key(&root) {
            return false;
        }
        // What follows a fold point by point is done once a row.
        let follows = !self.is_folded(root)
            && graph.node(root).op.is_inlined()
            && graph.node(root).shape == graph.node(id).shape
            && !self.folds(graph, root);
        if follows {
            self.reduces.insert(root, over.clone());
        }
        self.space(graph, root) == *over
    }

    /// What is computed in a root's kernel beside it, as far as that is decided.
    fn inside(&self, graph: &Graph, root: NodeId) -> impl Iterator<Item = NodeId> {
        let ids = graph.ids().collect::<Vec<_>>().into_iter();
        ids.filter(move |n| self.roles[n.index()] == Role::Inside(root))
    }

    fn admits_anchor(
        &self,
        graph: &Graph,
        users: &[Vec<NodeId>],
        root: NodeId,
        id: NodeId,
    ) -> bool {
        let direct = users[id.index()]
            .iter()
            .all(|u| !graph.node(*u).op.is_view());
        direct
            && !self.folds(graph, root)
            && !self.anchors.contains_key(&root)
            && graph.node(root).shape == graph.node(id).shape
    }

    /// For the report: scalar results that are stored, and why.
    pub fn stored(
        &self,
        graph: &Graph,
        forced: &BTreeMap<NodeId, &'static str>,
    ) -> Vec<(String, String)> {
        let name = |id: &NodeId| format!("%{} {}", id.0, graph.node(*id).op.name());
        let mut out: Vec<(String, String)> = self
            .several
            .iter()
            .map(|id| (name(id), "used by several kernels".to_string()))
            .collect();
        out.extend(
            forced
                .iter()
                .map(|(id, why)| (name(id), (*why).to_string())),
        );
        out
    }
}

/// Ops that a number may be made of to be computed wherever it is used.
const NUMBERS: usize = 8;

/// Whether a tensor is one number that sizes and constants decide (one over a count, say), by scalar ops of a depth.
fn one_number(graph: &Graph, id: NodeId, depth: usize) -> bool {
    let node = graph.node(id);
    let one = node.shape.iter().all(|d| d.is(1));
    let made = node.op.is_generated()
        || (node.op.is_view() || node.op.is_inlined())
            && depth > 0
            && node.inputs.iter().all(|i| one_number(graph, *i, depth - 1));
    one && made
}

/// Whether a value costs nothing to compute again: it is in memory, or generated.
fn cheap(graph: &Graph, mut id: NodeId) -> bool {
    loop {
        let node = graph.node(id);
        match &node.op {
            op if op.is_view() => id = node.inputs[0],
            Op::Input(_) | Op::Weight(..) | Op::State(_) | Op::Const(_) => return true,
            // Stored by a template or by the add that ends a residual branch.
            op => {
                return op.is_generated()
                    || !(op.is_inlined() || matches!(op, Op::Reduce(..)))
                    || *op == Op::Binary(trt_kernel::Binary::Add);
            }
        }
    }
}
