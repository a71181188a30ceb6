//! What a kernel must be for the back ends to run it, as far as that can be said without a launch.

use crate::sizes;
use crate::{
    Arg, Attention, Body, BodyError, DType, Dim, Encoding, Gather, Group, Kernel, Left, Matmul,
    Operand, Order, Routed, Row, View,
};

/// What [`Kernel::check`] can find wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The body breaks its rules.
    #[error("{kernel} kernel: {source}")]
    Body {
        /// The kernel kind.
        kernel: &'static str,
        /// What is wrong.
        source: BodyError,
    },
    /// A template's parts do not fit together.
    #[error("{kernel} kernel: {what}")]
    Shape {
        /// The kernel kind.
        kernel: &'static str,
        /// What is wrong, with numbers.
        what: String,
    },
}

impl Kernel {
    /// Checks everything that can be checked without a launch.
    ///
    /// # Errors
    /// [`KernelError::Body`] for a body that breaks its rules, [`KernelError::Shape`] for parts
    /// that do not fit together.
    pub fn check(&self) -> Result<(), KernelError> {
        let kind = Kind(self.kind());
        sizes::check(self).map_err(|what| kind.wrong(what))?;
        match self {
            Kernel::Row(k) => {
                kind.ensure(!k.space.is_empty(), "the index space has no axis".into())?;
                kind.body(&k.body, &k.args, k.space.len(), Owner::Row)
            }
            Kernel::Matmul(k) => kind.matmul(k),
            Kernel::Routed(k) => kind.routed(k),
            Kernel::Attention(k) => kind.attention(k),
            Kernel::Gather(k) => kind.gather(k),
            Kernel::Move(k) => kind.ensure(
                k.src.strides.len() == k.space.len()
                    && k.dst.strides.len() == k.space.len()
                    && !k.space.is_empty(),
                format!("views {} and {} over {} axes", k.src, k.dst, k.space.len()),
            ),
            Kernel::Group(k) => kind.group(k),
        }
    }
}

/// Whose body it is, which decides what the body may ask for.
#[derive(Clone, Copy)]
enum Owner {
    /// A row kernel, or the left operand of a product: it folds.
    Row,
    /// A template that hands a value in.
    Template,
}

/// The kind of the kernel that is checked, for errors.
#[derive(Clone, Copy)]
struct Kind(&'static str);

impl Kind {
    fn wrong(self, what: String) -> KernelError {
        KernelError::Shape {
            kernel: self.0,
            what,
        }
    }

    fn ensure(self, ok: bool, what: String) -> Result<(), KernelError> {
        match ok {
            true => Ok(()),
            false => Err(self.wrong(what)),
        }
    }

    fn body(self, b: &Body, args: &[DType], axes: usize, owner: Owner) -> Result<(), KernelError> {
        let (reduces, input) = match owner {
            Owner::Row => (true, false),
            Owner::Template => (false, true),
        };
        let kernel = self.0;
        b.check(args, axes, kernel, reduces, input)
            .map_err(|source| KernelError::Body { kernel, source })
    }

    fn operand(self, o: &Operand, args: usize, axes: usize) -> Result<(), KernelError> {
        self.ensure(
            (o.arg.0 as usize) < args && o.view.strides.len() == axes,
            format!(
                "operand a{} {} does not fit {args} args, {axes} axes",
                o.arg.0, o.view,
            ),
        )
    }

    /// Rows of all arguments but one are read value by value; beside one that is packed there is what unpacks it.
    fn plain(self, args: &[Encoding], but: Arg) -> Result<(), KernelError> {
        let codes = args.iter().filter(|e| **e == Encoding::Code).count();
        let packed = args.get(but.0 as usize).and_then(|e| e.as_packed());
        self.ensure(
            codes == usize::from(packed.is_some()),
            format!("{codes} arguments that unpack a{}", but.0),
        )?;
        let mut others = args.iter().enumerate();
        let other = |(i, e): &(usize, &Encoding)| {
            *i != but.0 as usize && e.as_plain().is_none() && **e != Encoding::Code
        };
        match others.find(other) {
            Some((i, e)) => Err(self.wrong(format!("a{i} is {e}, which only a{} may be", but.0))),
            None => Ok(()),
        }
    }

    /// Rows that are not plain are so many bytes long.
    fn whole(self, encoding: Encoding, columns: Option<usize>) -> Result<(), KernelError> {
        let fits = columns.is_some_and(|columns| match encoding {
            Encoding::Plain(_) | Encoding::Blocks(_) => encoding.row_bytes(columns).is_some(),
            Encoding::Packed(packed) => packed.geometry(columns).is_some(),
            Encoding::Code => false,
        });
        self.ensure(
            encoding.as_plain().is_some() || fits,
            format!(
                "rows of {columns:?} values in {encoding}, which has {} together",
                encoding.values()
            ),
        )
    }

    fn matmul(self, k: &Matmul) -> Result<(), KernelError> {
        let dtypes = k.dtypes();
        match &k.a {
            Left::Stored(a) => self.operand(a, dtypes.len(), 3)?,
            Left::Computed { dtype, body: left } => {
                let stores = !left.stores().is_empty();
                let fits = left.yielded().is_some() && !stores && dtype.is_float();
                let what = format!("a left operand of {dtype} that stores or yields nothing");
                self.ensure(fits, what)?;
                self.body(left, &dtypes, 3, Owner::Row)?;
            }
        }
        self.operand(&k.b, dtypes.len(), 3)?;
        self.plain(&k.args, k.b.arg)?;
        self.whole(k.right(), k.k.constant_size())?;
        self.ensure(
            k.right().as_plain().is_some() || k.ranged,
            format!("rows of {} that are not a weight's", k.right()),
        )?;
        self.ensure(
            k.right().as_packed().is_none() || k.n.constant_size().is_some(),
            format!("{} rows of {}", k.n, k.right()),
        )?;
        if k.ranged {
            let s = &k.b.view.strides;
            self.ensure(
                k.b.view.offset.is(0) && s[0].is(0) && s[1] == k.k && s[2].is(1) && k.batch.is(1),
                format!(
                    "a ranged operand must be row-major [{}, {}] with one batch, not {}",
                    k.n, k.k, k.b.view
                ),
            )?;
            // A launch on some rows has the weight's argument start there.
            for arg in [Some(k.b.arg), k.code()].into_iter().flatten() {
                let moved = k.bodies().any(|b| b.touches(arg));
                // Plain rows may meet themselves.
                let other = arg != k.b.arg || k.right().as_packed().is_some();
                let twice = other && k.a.stored().is_some_and(|a| a.arg == arg);
                self.ensure(
                    !moved && !twice,
                    format!("a{} is also used otherwise", arg.0),
                )?;
            }
        }
        self.body(&k.epilogue, &dtypes, 3, Owner::Template)
    }

    fn routed(self, k: &Routed) -> Result<(), KernelError> {
        let product = &k.product;
        self.operand(&k.ids, product.args.len(), 1)?;
        self.matmul(product)?;
        self.ensure(
            product.right().as_packed().is_none(),
            format!("experts of {}", product.right()),
        )?;
        let ids = product.args[k.ids.arg.0 as usize];
        let stored = product.a.stored().is_some() && k.ids.arg != product.b.arg;
        let what = format!("ids of {ids} in a{}", k.ids.arg.0);
        self.ensure(stored && !ids.dtype().is_float(), what)?;
        let counted = product.batch.constant_size().is_some() && i32::try_from(k.first).is_ok();
        self.ensure(
            counted,
            format!("{} experts from {} on", product.batch, k.first),
        )
    }

    fn attention(self, k: &Attention) -> Result<(), KernelError> {
        if let Some((rows, attention)) = k.split() {
            self.rows_before(k, rows)?;
            return Kernel::Attention(attention).check();
        }
        for o in [&k.q, &k.k, &k.v, &k.out] {
            self.operand(o, k.args.len(), 4)?;
        }
        self.ensure(
            k.heads.is_multiple_of(k.kv_heads),
            format!(
                "{} heads are no multiple of {} key heads",
                k.heads, k.kv_heads
            ),
        )?;
        self.ensure(
            k.score.yielded().is_some(),
            "the score yields nothing".into(),
        )?;
        self.body(&k.score, &k.args, 4, Owner::Template)
    }

    /// What row kernels before an attention must be.
    fn rows_before(self, k: &Attention, rows: &[Row]) -> Result<(), KernelError> {
        let (own, room) = (k.q.arg, k.own_elements());
        let only = [&k.k, &k.v, &k.out].iter().all(|o| o.arg != own) && !k.score.touches(own);
        self.ensure(
            k.own() == Some(own) && only,
            format!("rows before it, and queries in a{}", own.0),
        )?;
        let inside = |view: &View, space: &[Dim]| {
            room.is_some_and(|room| last(view, space).is_some_and(|last| last < room))
        };
        let sizes = [k.heads, k.head_dim].map(Dim::from);
        let [heads, head_dim] = &sizes;
        let space = [&k.batch, heads, &k.queries, head_dim].map(Dim::clone);
        let mut fits = inside(&k.q.view, &space);
        for row in rows {
            let same = row.args.split_last().is_some_and(|(d, args)| {
                args == k.args.as_slice() && d.is_float() && row.args == rows[0].args
            });
            self.ensure(
                same,
                format!("{} and {} arguments", row.args.len(), k.args.len()),
            )?;
            Kernel::Row(row.clone()).check()?;
            let mut each = row.body.accesses();
            fits &= each.all(|(arg, view, _)| arg != own || inside(view, &row.space));
        }
        self.ensure(fits, format!("queries outside of {room:?} elements"))
    }

    fn gather(self, k: &Gather) -> Result<(), KernelError> {
        self.operand(&k.ids, k.args.len(), 1)?;
        self.ensure(
            (k.table.0 as usize) < k.args.len(),
            format!("no table argument a{}", k.table.0),
        )?;
        self.plain(&k.args, k.table)?;
        self.ensure(
            k.table().as_packed().is_none(),
            format!("a table of {}", k.table()),
        )?;
        self.whole(k.table(), Some(k.cols))?;
        self.ensure(
            k.table().as_plain().is_some() || !k.body.touches(k.table),
            format!("a{} is also used otherwise", k.table.0),
        )?;
        self.body(&k.body, &k.dtypes(), 2, Owner::Template)
    }

    fn group(self, k: &Group) -> Result<(), KernelError> {
        self.ensure(k.parts.len() > 1, format!("{} parts", k.parts.len()))?;
        let products = |part: &Kernel| matches!(part, Kernel::Matmul(m) if m.ranged);
        let all = k.parts.iter().all(products);
        k.parts.iter().try_for_each(|part| match part {
            Kernel::Matmul(_) if all => part.check(),
            Kernel::Row(_) | Kernel::Move(_) => part.check(),
            Kernel::Matmul(_)
            | Kernel::Attention(_)
            | Kernel::Gather(_)
            | Kernel::Routed(_)
            | Kernel::Group(_) => Err(self.wrong(format!("a part is a {}", part.kind()))),
        })?;
        // Comparing them looks up their arguments.
        let chained = k.parts.windows(2).all(|pair| chained(&pair[0], &pair[1]));
        self.ensure(
            k.order == Order::Side || all && chained,
            "a chain of products that differ in shape or left operand".into(),
        )
    }
}

/// The last element that a view has in a space, if all is known and none lies before the first.
fn last(view: &View, space: &[Dim]) -> Option<usize> {
    let mut at = view.offset.constant_size()?;
    for (size, stride) in space.iter().zip(&view.strides) {
        let far = size.constant_size()?.saturating_sub(1);
        // Along an axis of one point nothing moves.
        if far > 0 {
            at = at.checked_add(far.checked_mul(stride.constant_size()?)?)?;
        }
    }
    Some(at)
}

/// Whether two products have one shape and the same left operand.
fn chained(one: &Kernel, other: &Kernel) -> bool {
    let (Kernel::Matmul(a), Kernel::Matmul(b)) = (one, other) else {
        return false;
    };
    let shapes = [a, b].map(|k| [&k.batch, &k.m, &k.n, &k.k]);
    shapes[0] == shapes[1] && a.left_dtype() == b.left_dtype() && a.a.same(&b.a)
}
