//! Elements that values pick, inside of whatever kernel needs them.

use super::access::{Access, Index};
use super::emit::{Emitter, Stop};
use crate::graph::NodeId;
use trt_kernel::{Inst, Reg, Ty};

impl Emitter<'_> {
    /// The element of a stored tensor that an id picks along an axis.
    pub(super) fn pick(
        &mut self,
        x: NodeId,
        ids: NodeId,
        axis: usize,
        access: &Access,
    ) -> Result<(Reg, Ty), Stop> {
        let place = self.places.of(x)?;
        let (id, _) = self.number(ids, access)?;
        let size = self.graph.node(x).shape[axis].clone();
        let id = self.body.push(Inst::Within(id, size));
        let mut from = access.clone();
        from[axis] = Index::default();
        let view = self.view(&place, &from);
        let arg = self.args.of(place.source, place.dtype);
        let stride = place.strides[axis].clone();
        let picked = self.body.push(Inst::Pick(arg, view, stride, id));
        let ty = if place.dtype.is_float() {
            Ty::F32
        } else {
            Ty::I64
        };
        Ok((picked, ty))
    }
}
