//! Bilinear interpolation: each axis is a weighted sum of two of its elements, which are picked.

use super::size;
use super::tensor::Tensor;
use candle_core::{DType, Result, bail};

/// The most places of an axis: each is looked at while a model is traced.
const PLACES: usize = 1 << 24;

/// How places of an axis become places of its elements.
#[derive(Clone, Copy)]
enum Grid {
    /// First and last elements stay where they are.
    Corners,
    /// Elements are areas, so many of which one place is.
    Areas(f64),
}

impl Tensor {
    /// Elements of `[b, c, h, w]` interpolated to another size; with `align_corners` those at the corners stay.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes or is not of a float, there are no elements, or a size is too large.
    #[track_caller]
    pub fn upsample_bilinear2d(
        &self,
        target_h: usize,
        target_w: usize,
        align_corners: bool,
    ) -> Result<Tensor> {
        let (_, _, h, w) = self.dims4()?;
        let areas = |from: usize, to: usize| from as f64 / to.max(1) as f64;
        self.bilinear(
            [(h, target_h), (w, target_w)],
            |from, to, _| areas(from, to),
            align_corners,
        )
    }

    /// As [`Tensor::upsample_bilinear2d`], by factors: sizes are rounded down.
    ///
    /// # Errors
    ///
    /// As [`Tensor::upsample_bilinear2d`].
    #[track_caller]
    pub fn upsample_bilinear2d_with_scale(
        &self,
        scale_h: f64,
        scale_w: f64,
        align_corners: bool,
    ) -> Result<Tensor> {
        let (_, _, h, w) = self.dims4()?;
        let target = |size: usize, scale: f64| (size as f64 * scale).floor() as usize;
        let scales = [scale_h, scale_w];
        let sizes = [(h, target(h, scale_h)), (w, target(w, scale_w))];
        self.bilinear(sizes, |_, _, axis| 1.0 / scales[axis], align_corners)
    }

    #[track_caller]
    fn bilinear(
        &self,
        sizes: [(usize, usize); 2],
        area: impl Fn(usize, usize, usize) -> f64,
        align_corners: bool,
    ) -> Result<Tensor> {
        if !self.kernel_dtype().is_float() {
            bail!("bilinear interpolation of {self:?}, which is not of a float");
        }
        if sizes.iter().all(|(from, to)| from == to) {
            return Ok(self.clone());
        }
        let mut out = self.to_dtype(DType::F32)?;
        // Columns first, as candle rounds.
        for axis in [1, 0] {
            let (from, to) = sizes[axis];
            let grid = match align_corners {
                true => Grid::Corners,
                false => Grid::Areas(area(from, to, axis)),
            };
            out = out.interpolated(axis + 2, to, grid)?;
        }
        out.to_dtype(self.dtype())
    }

    /// An axis of `[b, c, h, w]` in f32 at another length.
    #[track_caller]
    fn interpolated(&self, axis: usize, target: usize, grid: Grid) -> Result<Tensor> {
        let size = self.dims()[axis];
        let Some(last) = size.checked_sub(1) else {
            bail!("bilinear interpolation: axis {axis} of {self:?} has no elements");
        };
        if target > PLACES {
            bail!("bilinear interpolation: {target} places are too many: more than {PLACES}");
        }
        let place = |i: usize| match (grid, target) {
            (Grid::Corners, 0 | 1) => 0.0,
            (Grid::Corners, n) => last as f64 / (n - 1) as f64 * i as f64,
            (Grid::Areas(scale), _) => scale * (i as f64 + 0.5) - 0.5,
        };
        let mut ids: [Vec<u32>; 2] = [size::room(target, "places")?, size::room(target, "places")?];
        let mut parts: Vec<f32> = size::room(target, "places")?;
        for i in 0..target {
            let at = place(i).max(0.0);
            let first = (at.floor() as usize).min(last);
            ids[0].push(first as u32);
            ids[1].push((first + 1).min(last) as u32);
            parts.push((at - first as f64).clamp(0.0, 1.0) as f32);
        }
        let device = self.device();
        let mut shape = [1; 4];
        shape[axis] = target;
        let part = Tensor::from_vec(parts, target, device)?.reshape(&shape)?;
        let pick = |ids: &[u32]| self.index_select(&Tensor::from_slice(ids, target, device)?, axis);
        let (a, b) = (pick(&ids[0])?, pick(&ids[1])?);
        let rest = (1.0 - &part)?;
        a.broadcast_mul(&rest)? + b.broadcast_mul(&part)?
    }
}
