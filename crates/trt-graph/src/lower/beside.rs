//! Folds that share a kernel: where one fold needs another over the same rows (a variance its mean), and that
//! is needed elsewhere too, the kernel of the second computes both and stores both.
//!
//! The second is the first kernel that reads the first's result, so what is stored there is there for all others.
//! Whether the rows are walked alike is seen when the body is written; if not, the first is stored by a kernel
//! of its own as before.
//!
//! What only follows from a fold, number by number (the root of a variance), is computed once a row, by the fold's kernel, and
//! not once a point by the kernel that reads it.

use super::group::{Groups, Role};
use crate::graph::{Graph, NodeId};
use std::collections::BTreeMap;

impl Groups {
    /// Finds such folds; from the last node back, so that three in a row meet in one kernel.
    pub(super) fn fold_together(
        &mut self,
        graph: &Graph,
        users: &[Vec<NodeId>],
        forced: &BTreeMap<NodeId, &'static str>,
    ) {
        for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
            let folds = self.roles[id.index()] == Role::Root && self.is_folded(id);
            if !folds || forced.contains_key(&id) {
                continue;
            }
            let first = self.readers(users, id).into_iter().min();
            if let Some(first) = first.filter(|f| self.is_folded(*f))
                && self.space(graph, first) == self.space(graph, id)
                && graph.node(first).shape.len() == graph.node(id).shape.len()
            {
                self.roles[id.index()] = Role::Beside(first);
            }
        }
    }

    /// Brings what only follows from a fold into its kernel.
    pub(super) fn follow_folds(&mut self, graph: &Graph, users: &[Vec<NodeId>]) {
        for fold in graph.ids() {
            let root = self.roles[fold.index()] == Role::Root && self.is_folded(fold);
            let mut chain = vec![fold];
            while let (true, [next]) = (root, &users[chain[chain.len() - 1].index()][..])
                && self.follows(graph, chain[chain.len() - 1], *next)
            {
                chain.push(*next);
            }
            let tip = chain[chain.len() - 1];
            if tip != fold && !graph.roots().any(|r| chain.contains(&r)) {
                chain
                    .iter()
                    .for_each(|id| self.roles[id.index()] = Role::Inside(tip));
                self.roles[tip.index()] = Role::Root;
                self.fold_ends_at(tip, fold);
            }
        }
    }

    /// Whether a node needs nothing of a row but one number.
    fn follows(&self, graph: &Graph, number: NodeId, id: NodeId) -> bool {
        let node = graph.node(id);
        let free = |input: &NodeId| {
            let mut from = *input;
            while graph.node(from).op.is_view() {
                from = graph.node(from).inputs[0];
            }
            *input == number || self.roles[from.index()] == Role::Anywhere
        };
        matches!(self.roles[id.index()], Role::Inside(_))
            && node.op.is_scalar()
            && node.shape == graph.node(number).shape
            && node.inputs.iter().all(free)
    }

    /// The roots whose kernels read a node's result, also through layouts and what is computed anywhere.
    fn readers(&self, users: &[Vec<NodeId>], id: NodeId) -> Vec<NodeId> {
        let (mut found, mut stack) = (Vec::new(), users[id.index()].clone());
        while let Some(user) = stack.pop() {
            match self.kernel(user) {
                Some(root) => found.push(root),
                None => stack.extend(&users[user.index()]),
            }
        }
        found
    }

    /// What is stored by a root's kernel beside the root, in the order of the graph.
    pub(super) fn beside(&self, root: NodeId) -> Vec<NodeId> {
        let roles = self.roles.iter().zip(0u32..);
        let stored = roles.filter(|(role, _)| matches!(role, Role::Beside(_)));
        let ids = stored.map(|(_, i)| NodeId(i));
        ids.filter(|id| self.kernel(*id) == Some(root)).collect()
    }

    /// The root whose kernel computes a node, if there is one kernel.
    pub(super) fn kernel(&self, mut id: NodeId) -> Option<NodeId> {
        loop {
            match self.roles[id.index()] {
                Role::Root => return Some(id),
                Role::Inside(next) | Role::Beside(next) => id = next,
                Role::Leaf | Role::View | Role::Anywhere => return None,
            }
        }
    }

    /// What to store so that a node need not be computed in the kernel of another root: what is stored beside that,
    /// if the node belongs to it, else the node.
    pub(super) fn apart(&self, id: NodeId) -> NodeId {
        let of = match self.roles[id.index()] {
            Role::Inside(root) => root,
            _ => id,
        };
        match self.roles[of.index()] {
            Role::Beside(_) => of,
            _ => id,
        }
    }
}
