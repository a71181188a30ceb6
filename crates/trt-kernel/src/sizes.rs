//! What sizes a kernel may have, so that whoever makes it ready may divide by them and multiply
//! them without asking again.

use crate::{Attention, Dim, Interval, Kernel, Var, View};

/// No index space has more points, and no view reaches further, with runtime integers of 1:
/// products with an element's size and some more still fit 64 bits.
const LARGEST: i64 = 1 << 48;
/// The most axes of an index space.
const AXES: usize = 16;
/// The highest power of a runtime integer in a size.
const POWER: u8 = 8;

type Checked = Result<(), String>;

/// Checks all sizes of a kernel but those of the parts of a group.
pub(crate) fn check(kernel: &Kernel) -> Checked {
    if let Kernel::Attention(k) = kernel {
        heads(k)?;
    }
    if let Kernel::Row(crate::Row { space, .. }) | Kernel::Move(crate::Move { space, .. }) = kernel
        && space.len() > AXES
    {
        return Err(format!("{} axes, more than {AXES}", space.len()));
    }
    let power = |d: &&Dim| d.terms().iter().any(|t| t.0.iter().any(|p| *p > POWER));
    if let Some(dim) = kernel.dims().into_iter().find(power) {
        return Err(format!("a size {dim} of a power above {POWER}"));
    }
    if let Kernel::Group(_) = kernel {
        return Ok(());
    }
    kernel.walks().iter().try_for_each(|walk| {
        points(&walk.space())?;
        let mut accesses = walk.accesses();
        accesses.try_for_each(|access| reach(&access.view, &access.space))
    })
}

fn heads(k: &Attention) -> Checked {
    let sizes = [
        ("heads", k.heads),
        ("kv_heads", k.kv_heads),
        ("head_dim", k.head_dim),
        ("value_dim", k.value_dim),
    ];
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(format!("{name} is 0")),
        None => Ok(()),
    }
}

/// Whether no size is known to be negative, and all together are no more points than there may be.
fn points(space: &[Dim]) -> Checked {
    if let Some(size) = space.iter().find(|s| s.constant().is_some_and(|c| c < 0)) {
        return Err(format!("a size of {size}"));
    }
    let mut each = space.iter().map(least);
    let all = each.try_fold(1i64, |all, size| all.checked_mul(size?.max(1)));
    match all.is_some_and(|all| all <= LARGEST) {
        true => Ok(()),
        false => Err(format!(
            "a space of {} is too large: more than {LARGEST} points",
            list(space)
        )),
    }
}

/// Whether a view stays near its argument.
fn reach(view: &View, space: &[Dim]) -> Checked {
    let mut all = least(&view.offset);
    for (size, stride) in space.iter().zip(&view.strides) {
        let far = least(size).zip(least(stride));
        let far = far.and_then(|(size, stride)| size.checked_mul(stride));
        all = all.zip(far).and_then(|(all, far)| all.checked_add(far));
    }
    match all.is_some_and(|all| all <= LARGEST) {
        true => Ok(()),
        false => Err(format!(
            "{view} over {} reaches more than {LARGEST} elements",
            list(space)
        )),
    }
}

/// The absolute value of a size where runtime integers are 1, every term counted.
fn least(dim: &Dim) -> Option<i64> {
    dim.magnitude(&[Interval { min: 1, max: 1 }; Var::MAX])
}

fn list(space: &[Dim]) -> String {
    let sizes: Vec<String> = space.iter().map(Dim::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
