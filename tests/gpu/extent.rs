//! How many elements of each argument a kernel may touch in a call.

use candle_trt::kernel::{Arg, Body, Dim, Env, Inst, Kernel, Left, View};

/// For each argument, one more than the last element that a view reaches.
pub fn lengths(kernel: &Kernel, env: &Env) -> Vec<usize> {
    kernel
        .parts()
        .iter()
        .flat_map(|k| of_part(k, env))
        .collect()
}

fn of_part(kernel: &Kernel, env: &Env) -> Vec<usize> {
    let mut reach = Reach {
        env,
        lengths: vec![0; kernel.args().len()],
    };
    match kernel {
        Kernel::Row(k) => reach.body(&k.body, &k.space),
        Kernel::Matmul(k) => {
            let of = |last: &Dim| [k.batch.clone(), last.clone(), k.k.clone()];
            match &k.a {
                Left::Stored(a) => reach.view(a.arg, &a.view, &of(&k.m)),
                Left::Computed { body, .. } => reach.body(body, &of(&k.m)),
            }
            reach.view(k.b.arg, &k.b.view, &of(&k.n));
            reach.body(&k.epilogue, &[k.batch.clone(), k.m.clone(), k.n.clone()]);
        }
        Kernel::Attention(k) => {
            let space = |heads: usize, rows: &Dim, cols: usize| {
                [k.batch.clone(), heads.into(), rows.clone(), cols.into()]
            };
            reach.view(k.q.arg, &k.q.view, &space(k.heads, &k.queries, k.head_dim));
            reach.view(k.k.arg, &k.k.view, &space(k.kv_heads, &k.keys, k.head_dim));
            reach.view(k.v.arg, &k.v.view, &space(k.kv_heads, &k.keys, k.value_dim));
            reach.view(
                k.out.arg,
                &k.out.view,
                &space(k.heads, &k.queries, k.value_dim),
            );
            let scores = [
                k.batch.clone(),
                k.heads.into(),
                k.queries.clone(),
                k.keys.clone(),
            ];
            reach.body(&k.score, &scores);
            for row in &k.before {
                reach.body(&row.body, &row.space);
            }
        }
        Kernel::Gather(k) => {
            reach.view(k.ids.arg, &k.ids.view, std::slice::from_ref(&k.rows));
            let table = k.entries * k.cols;
            let slot = &mut reach.lengths[k.table.0 as usize];
            *slot = (*slot).max(table);
            reach.body(&k.body, &[k.rows.clone(), k.cols.into()]);
        }
        Kernel::Move(k) => {
            reach.view(Arg(0), &k.src, &k.space);
            reach.view(Arg(1), &k.dst, &k.space);
        }
        Kernel::Group(_) => unreachable!("a group's parts are no groups"),
    }
    reach.lengths
}

struct Reach<'a> {
    env: &'a Env,
    lengths: Vec<usize>,
}

impl Reach<'_> {
    fn view(&mut self, arg: Arg, view: &View, space: &[Dim]) {
        let mut last = view.offset.eval(self.env);
        for (size, stride) in space.iter().zip(&view.strides) {
            let size = size.eval(self.env);
            if size <= 0 {
                return;
            }
            last += (size - 1) * stride.eval(self.env).max(0);
        }
        // A launch's own memory is no argument.
        if let Some(slot) = self.lengths.get_mut(arg.0 as usize) {
            *slot = (*slot).max(usize::try_from(last + 1).unwrap_or(0));
        }
    }

    fn body(&mut self, body: &Body, space: &[Dim]) {
        for inst in &body.insts {
            if let Inst::Load(arg, view) | Inst::Store(arg, view, _) = inst {
                self.view(*arg, view, space);
            }
        }
    }
}
