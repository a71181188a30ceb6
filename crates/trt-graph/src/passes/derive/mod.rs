//! What follows from weights alone is computed once: it becomes a *derived weight*, and how it is made a graph
//! of its own.
//!
//! Model code folds batch norms into convolutions, joins matrices, turns and scales them, in each call, since it
//! has no other place for that. Such a result depends on nothing of a call, so the graph that comes out reads a weight in its
//! place, named after what it is made of, and [`Derived`] says how whoever holds the weights makes it. The
//! invariants: a graph and its derived weights mean what the graph meant before; the values are rounded to the dtype
//! of the node they replace; and equal recipes have one name, in every class of calls and in every process.
//!
//! Derived is what a call would write to memory: whatever a product or another kernel with operands in memory
//! reads, if more is done to it than to see it in another layout; what needs passes of its own (sums,
//! joins, products); and what is at most half of what it is made of. The rest is left where it is: products read a weight's rows in its own dtype
//! and gathers its table (`weight_rows`), and a kernel that computes elements computes `w + 1` as it goes.
//! What would be much larger than its sources stays too.

mod cost;
mod recipe;

pub use recipe::Derived;

use super::rewrite::{push, rebuild};
use super::{canonical, clean};
use crate::graph::{Graph, Node, NodeId, Op};
use crate::{Error, verify};
use cost::{Costs, Work};
use recipe::Recipe;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many times its sources' bytes a derived weight may have; blocks of values are far above that.
const GROWTH: usize = 2;
/// Bytes up to which it may have any number of them.
const SMALL: usize = 64 << 10;

/// An optimised graph with derived weights in place of what follows from weights alone, and how these are made, in
/// the order in which the graph has them.
///
/// # Errors
///
/// [`Error::Verify`] for a graph that breaks its invariants, before or after.
pub fn derive(graph: Graph) -> Result<(Graph, Vec<Derived>), Error> {
    verify(&graph, "derive")?;
    let mut found = Finder::new(&graph);
    found.look();
    if found.nodes.is_empty() && found.turned.is_empty() {
        return Ok((graph, Vec::new()));
    }
    let Finder { nodes, turned, .. } = found;
    let mut derived: BTreeMap<Arc<str>, Derived> = BTreeMap::new();
    nodes.values().chain(turned.values()).for_each(|d| {
        derived.insert(d.name().clone(), d.clone());
    });
    let replaced = rebuild(&graph, |out, id, mut node| {
        if let Some(derived) = nodes.get(&id) {
            return weight(out, derived);
        }
        if let (Op::Matmul, Some(right)) = (&node.op, graph.node(id).inputs.get(1))
            && let Some(derived) = turned.get(right)
        {
            let rows = weight(out, derived);
            let Node { shape, dtype, .. } = out.node(rows).clone();
            let columns = [shape[1].clone(), shape[0].clone()];
            node.inputs[1] = push(out, Op::Permute(vec![1, 0]), &[rows], &columns, dtype);
        }
        out.push(node)
    });
    let graph = clean::run(canonical::run(replaced));
    verify(&graph, "derive")?;
    for one in derived.values() {
        verify(one.graph(), "derive")?;
    }
    let order = graph.nodes.iter().filter_map(|n| match &n.op {
        Op::Weight(name, _) => derived.remove(name),
        _ => None,
    });
    let order = order.collect();
    Ok((graph, order))
}

fn weight(g: &mut Graph, derived: &Derived) -> NodeId {
    let Node { shape, dtype, .. } = derived.result();
    let op = Op::Weight(derived.name().clone(), (*dtype).into());
    push(g, op, &[], shape, *dtype)
}

/// What of a graph is derived.
struct Finder<'a> {
    graph: &'a Graph,
    costs: Costs,
    /// Nodes that are derived weights.
    nodes: BTreeMap<NodeId, Derived>,
    /// Right operands of products, `[k, n]`, whose rows `[n, k]` are.
    turned: BTreeMap<NodeId, Derived>,
}

impl<'a> Finder<'a> {
    fn new(graph: &'a Graph) -> Self {
        Finder {
            graph,
            costs: Costs::new(graph),
            nodes: BTreeMap::new(),
            turned: BTreeMap::new(),
        }
    }

    /// Looks at all that is read by what depends on more than weights.
    fn look(&mut self) {
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            if self.costs.fixed(id) || node.op.is_view() {
                continue;
            }
            for (place, read) in node.inputs.iter().enumerate() {
                let matrix = self.graph.node(*read).shape.len() == 2;
                if node.op == Op::Matmul && place == 1 && matrix && self.costs.of_weights(*read) {
                    self.right(*read);
                    continue;
                }
                let source = self.behind_views(*read);
                if self.costs.of_weights(source) {
                    let elements = node.op.is_inlined() || matches!(node.op, Op::Reduce(..));
                    self.operand(source, elements);
                }
            }
        }
    }

    fn behind_views(&self, mut id: NodeId) -> NodeId {
        while self.graph.node(id).op.is_view() {
            id = self.graph.node(id).inputs[0];
        }
        id
    }

    /// What a kernel reads: from memory, or element by element where it could compute it itself.
    fn operand(&mut self, id: NodeId, elements: bool) {
        let needed = match self.costs.work(id) {
            Work::Read => false,
            Work::Elements if elements => {
                let recipe = Recipe::of(self.graph, id);
                recipe.sources() >= recipe.bytes().saturating_mul(2)
            }
            Work::Elements | Work::Passes => true,
        };
        if needed {
            self.keep(id, Recipe::of(self.graph, id));
        }
    }

    /// The right operand `[k, n]` of a product, which streams if it is `permute(w)` of rows in memory.
    fn right(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        if node.op != Op::Permute(vec![1, 0]) {
            return self.turn(id);
        }
        let rows = node.inputs[0];
        let joined = self.graph.node(rows);
        let inner = match joined.op {
            Op::Reshape => joined.inputs[0],
            _ => rows,
        };
        let same = self.graph.node(inner).shape.first() == joined.shape.first();
        let stored = if same { inner } else { rows };
        match &self.graph.node(stored).op {
            Op::Weight(..) => {}
            // A product reads the weight.
            Op::Cast if self.is_weight(self.graph.node(stored).inputs[0]) => {}
            op if op.is_view() || self.costs.work(stored) == Work::Read => self.turn(id),
            _ => self.keep(stored, Recipe::of(self.graph, stored)),
        }
    }

    fn turn(&mut self, id: NodeId) {
        let recipe = Recipe::of(self.graph, id);
        let recipe = recipe.stored(self.costs.work(id)).turned();
        if let Some(derived) = self.fits(recipe) {
            self.turned.insert(id, derived);
        }
    }

    fn is_weight(&self, id: NodeId) -> bool {
        matches!(self.graph.node(id).op, Op::Weight(..))
    }

    fn keep(&mut self, id: NodeId, recipe: Recipe) {
        if !self.nodes.contains_key(&id)
            && let Some(derived) = self.fits(recipe)
        {
            self.nodes.insert(id, derived);
        }
    }

    /// The derived weight of a recipe, if there can and should be one.
    fn fits(&self, recipe: Recipe) -> Option<Derived> {
        let bytes = recipe.bytes();
        let most = recipe.sources().saturating_mul(GROWTH).max(SMALL);
        (recipe.is_float() && (1..=most).contains(&bytes)).then(|| recipe.finish())
    }
}
