//! Products whose results lie in memory as what follows needs them.
//!
//! A product has rows of channels. What is seen of it may be channels in front of places, joined or split so that
//! no strides express it (a group norm's groups): that would be a copy. For a single image the product can store
//! its result in that layout itself. It does so unless another product or template has the result as an
//! operand: those read rows best.

use super::place::Place;
use super::writer::Writer;
use crate::graph::{NodeId, Op};

impl Writer<'_> {
    /// Memory for a result that belongs nowhere else.
    pub(super) fn own(&mut self, id: NodeId) -> Place {
        let node = self.graph.node(id);
        let place = self.temp(node.dtype, &node.shape);
        self.arranged(id, &place).unwrap_or(place)
    }

    /// The memory of a product's result in the layout in which it is seen, if that saves a copy.
    fn arranged(&self, id: NodeId, plain: &Place) -> Option<Place> {
        let product = self.graph.node(id).op == Op::Matmul;
        if !product && !self.groups.anchors.contains_key(&id) {
            return None;
        }
        let mut path = vec![id];
        while let [user] = self.users[path[path.len() - 1].index()][..] {
            let seen = matches!(self.graph.node(user).op, Op::Reshape | Op::Permute(_));
            if !seen || self.graph.roots().any(|r| r == user) {
                break;
            }
            path.push(user);
        }
        let [.., end] = path[..] else { return None };
        if path.len() < 2 || !self.copied(id, plain)? {
            return None;
        }
        let last = self.graph.node(end);
        self.behind(
            &path,
            Place::contiguous(plain.source, last.dtype, &last.shape),
        )
    }

    /// Whether a view of a result would be a copy if it lay in some place; None if a template reads it there.
    fn copied(&self, id: NodeId, plain: &Place) -> Option<bool> {
        let (mut stack, mut copied) = (vec![(id, plain.clone())], false);
        while let Some((seen, place)) = stack.pop() {
            let from = &self.graph.node(seen).shape;
            for user in &self.users[seen.index()] {
                let node = self.graph.node(*user);
                match &node.op {
                    op if op.is_view() => match place.viewed(op, from, &node.shape) {
                        Some(place) => stack.push((*user, place)),
                        None => copied = true,
                    },
                    Op::Matmul | Op::Attention(_) | Op::Rope | Op::IndexSelect | Op::Experts => {
                        return None;
                    }
                    _ => {}
                }
            }
        }
        Some(copied)
    }

    /// The place of what a chain of reshapes and permutes starts from, given that of its end, if strides can express it.
    pub(super) fn behind(&self, path: &[NodeId], end: Place) -> Option<Place> {
        path.windows(2).rev().try_fold(end, |place, step| {
            let (from, view) = (self.graph.node(step[0]), self.graph.node(step[1]));
            let back = match &view.op {
                Op::Permute(perm) => {
                    let mut inverse = vec![0; perm.len()];
                    perm.iter().enumerate().for_each(|(i, p)| inverse[*p] = i);
                    Op::Permute(inverse)
                }
                _ => Op::Reshape,
            };
            place.viewed(&back, &view.shape, &from.shape)
        })
    }
}
