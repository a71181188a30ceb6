//! Programs that are stored and come back: the same, or refused.

use crate::support::trace_step;
use trt_graph::candle::{D, DType, Module};
use trt_graph::candle_nn::{Linear, ops};
use trt_graph::program::{
    Buffer, BufferId, BufferKind, Launch, ParamId, Program, Source, State, Weight,
};
use trt_graph::{Class, Error, Floor, InputDecl, IntVar, Literal, compile};
use trt_kernel as k;
use trt_kernel::{Arg, BodyBuilder, Dim, Inst, Kernel, Operand, Reg, Var, View};

/// A gather, two kinds of row kernels, a matmul with an epilogue, a constant.
fn program() -> Program {
    let graph = trace_step(&[("n", 2, 9)], |call, vb| {
        let x = call.input("x", (call.int("n")?, 4), DType::F32)?;
        let h = Linear::new(vb.get((5, 4), "w5x4")?, None)
            .forward(&x)?
            .silu()?;
        let h = ops::softmax(&h, D::Minus1)?;
        Ok(vec![(h.sum_keepdim(1)? * 0.5)?, h])
    });
    compile(graph.unwrap()).unwrap().0
}

#[test]
fn a_program_comes_back_as_it_was() {
    let mut program = program();
    // Numbers that text formats lose.
    let bytes: Vec<u8> = [f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    program.buffers.push(Buffer {
        kind: BufferKind::Const(Literal::new(bytes)),
        dtype: k::DType::F32,
        len: Dim::from(3),
        max_len: 3,
    });
    program.verify().unwrap();
    let stored = postcard::to_allocvec(&program).unwrap();
    let back: Program = postcard::from_bytes(&stored).unwrap();
    assert_eq!(back, program);
}

/// A way to break a program, and what the error says.
type Break = (&'static str, fn(&mut Program));

#[test]
fn a_program_that_breaks_an_invariant_is_refused_and_named() {
    let breaks: &[Break] = &[
        ("no axis", |p| row(p).space.clear()),
        ("too large", |p| row(p).space[0] = Dim::from(1i64 << 60)),
        ("too large", |p| row(p).space[0] = Dim::var(Var(3))),
        ("arguments for", |p| p.launches[0].args.clear()),
        ("argument a0 is b1000", |p| {
            p.launches[0].args[0] = Source::Buffer(BufferId(1000));
        }),
        ("argument a0 is w9", |p| {
            p.launches[0].args[0] = Source::Weight(ParamId(9));
        }),
        ("not f32", |p| {
            p.buffers.last_mut().unwrap().dtype = k::DType::U8
        }),
        ("elements at most", |p| {
            p.buffers.last_mut().unwrap().max_len += 1
        }),
        ("is not Input(0)", |p| p.buffers.swap(0, 1)),
        ("is not Output(1)", |p| p.outputs[1].0.push(Dim::from(2))),
        ("than are declared", |p| {
            p.buffers.last_mut().unwrap().kind = BufferKind::Input(7)
        }),
        ("too early", |p| p.launches.rotate_left(1)),
        ("it writes to b0", |p| {
            let last = p.launches[0].args.len() - 1;
            p.launches[0].args[last] = Source::Buffer(BufferId(0));
        }),
        ("cannot take the place", |p| {
            p.launches[0].in_place.push((BufferId(0), BufferId(1)));
        }),
        ("used otherwise", |p| p.weights[0].roles.add(k::Role::Table)),
        ("too many elements", |p| {
            p.weights[0].shape = vec![1 << 40, 1 << 40]
        }),
        ("runtime integers", |p| {
            p.ints = vec![p.ints[0].clone(); k::Var::MAX + 1]
        }),
        ("runtime integers", |p| {
            p.floors = vec![half(&Dim::from(1)); k::Var::MAX]
        }),
        ("depends on what the calls do not have", |p| {
            p.floors = vec![half(&Dim::var(Var(1)))]
        }),
        ("0 divides", |p| {
            p.floors = vec![Floor {
                by: 0,
                ..half(&Dim::var(Var(0)))
            }]
        }),
        ("-4 divides", |p| {
            p.floors = vec![Floor {
                by: -4,
                ..half(&Dim::var(Var(0)))
            }]
        }),
        ("too large", |p| {
            p.floors = vec![half(&(&Dim::from(1i64 << 60) * &Dim::var(Var(0))))]
        }),
        ("n is in 9..=2", |p| {
            let range = &mut p.ints[0].range;
            std::mem::swap(&mut range.min, &mut range.max);
        }),
    ];
    program().verify().unwrap();
    for (what, breaks) in breaks {
        let mut broken = program();
        breaks(&mut broken);
        let error = broken.verify().expect_err(what);
        assert!(matches!(error, Error::Program(_)), "{error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

fn half(of: &Dim) -> Floor {
    let (of, by) = (of.clone(), 2);
    Floor { of, by }
}

/// A size of so many terms.
fn terms(n: usize) -> Dim {
    let powers = |i: usize| {
        let mut powers = [0; Var::MAX];
        powers[..3].copy_from_slice(&[i % 9, i / 9 % 9, i / 81 % 9].map(|p| p as u8));
        powers
    };
    Dim::from_terms((0..n).map(|i| (powers(i), 1)).collect())
}

#[test]
fn sizes_of_many_terms_are_refused_before_they_are_multiplied() {
    let mut program = program();
    // Each integer is 1, so each size is no more than its terms are.
    let one = IntVar {
        name: "n".into(),
        range: k::Interval { min: 1, max: 1 },
    };
    program.ints = ["a", "b", "c", "d"]
        .map(|name| IntVar {
            name: name.into(),
            ..one.clone()
        })
        .to_vec();
    program.outputs[0].0 = vec![terms(8); 16];
    let start = std::time::Instant::now();
    let error = program.verify().unwrap_err().to_string();
    assert!(
        error.contains("a product of 281474976710656 terms"),
        "{error}"
    );
    assert!(start.elapsed().as_secs() < 2);
    let stored = postcard::to_allocvec(&terms(700)).unwrap();
    let error = postcard::from_bytes::<Dim>(&stored);
    assert!(error.is_err(), "{error:?}");
    let most = postcard::to_allocvec(&terms(256)).unwrap();
    assert_eq!(postcard::from_bytes::<Dim>(&most).unwrap(), terms(256));
}

#[test]
fn launches_of_very_many_kernels_are_refused_at_once() {
    let mut program = grouped();
    let group = program
        .launches
        .iter_mut()
        .find_map(|l| match &mut l.kernel {
            Kernel::Group(group) => Some(group),
            _ => None,
        });
    let group = group.unwrap();
    let part = group.parts[0].clone();
    group.parts.resize(200_000, part);
    let start = std::time::Instant::now();
    let error = program.verify().unwrap_err().to_string();
    assert!(error.contains("200000 kernels in one launch"), "{error}");
    assert!(start.elapsed().as_secs() < 2);
}

/// The first row kernel.
fn row(p: &mut Program) -> &mut k::Row {
    let row = p.launches.iter_mut().find_map(|l| match &mut l.kernel {
        Kernel::Row(row) => Some(row),
        _ => None,
    });
    row.unwrap()
}

/// `x + 1` and `x + 2`, which share a launch.
fn grouped() -> Program {
    let graph = trace_step(&[("n", 2, 9)], |call, _| {
        let x = call.input("x", (6, 4), DType::F32)?;
        Ok(vec![(&x + 1.0)?, (&x + 2.0)?])
    });
    compile(graph.unwrap()).unwrap().0
}

#[test]
fn parts_of_a_group_that_touch_what_another_writes_are_refused() {
    let mut program = grouped();
    assert_eq!(program.launches[0].kernel.kind(), "group");
    program.verify().unwrap();
    let stored = postcard::to_allocvec(&program).unwrap();
    assert_eq!(postcard::from_bytes::<Program>(&stored).unwrap(), program);
    let args = &mut program.launches[0].args;
    let last = args.len() - 1;
    args[last] = args[1];
    let error = program.verify().expect_err("both write one output");
    assert!(error.to_string().contains("another uses"), "{error}");
}

/// Every kind of instruction but those of templates.
fn every_instruction(n: &Dim, view: &View) -> k::Body {
    let mut b = BodyBuilder::new();
    let (x, i) = (b.load(Arg(0), view.clone()), b.push(Inst::Iota(1)));
    let (f, d) = (b.push(Inst::F32(-0.5)), b.push(Inst::I64(n.clone())));
    let u = b.unary(k::Unary::GeluErf, x);
    let s = b.binary(k::Binary::Pow, u, f);
    let c = b.push(Inst::Compare(k::Compare::Ge, i, d));
    let w = b.push(Inst::Select(c, s, Reg(0)));
    let r = b.push(Inst::Reduce(k::Reduce::Min, w));
    let t = b.push(Inst::Cast(r, k::Ty::I64));
    b.store(Arg(1), view.clone(), t);
    b.finish()
}

/// Every kind of kernel, with every kind of instruction in one of them.
fn every_kernel() -> Vec<Kernel> {
    let n = &Dim::var(Var(1)) * &Dim::from(3);
    let space = vec![n.clone(), Dim::from(4)];
    let view = |axes: usize| View {
        offset: Dim::var(Var(0)),
        strides: vec![Dim::from(1); axes],
    };
    let operand = |arg, axes| Operand {
        arg: Arg(arg),
        view: view(axes),
    };
    let yields = || {
        let mut b = BodyBuilder::new();
        let input = b.push(Inst::Input);
        b.push(Inst::Yield(input));
        b.finish()
    };
    let row = k::Row {
        space: space.clone(),
        args: vec![k::DType::BF16, k::DType::U8],
        body: every_instruction(&n, &view(2)),
    };
    let matmul = k::Matmul {
        batch: Dim::from(1),
        m: n.clone(),
        n: Dim::from(8),
        k: Dim::from(4),
        args: k::Encoding::plain([k::DType::F16, k::DType::F32]),
        a: operand(0, 3).into(),
        b: operand(1, 3),
        ranged: true,
        epilogue: yields(),
    };
    let computing = k::Matmul {
        a: k::Left::Computed {
            dtype: k::DType::BF16,
            body: yields(),
        },
        ..matmul.clone()
    };
    let attention = k::Attention {
        batch: Dim::from(1),
        heads: 4,
        kv_heads: 2,
        queries: n.clone(),
        keys: n.clone(),
        head_dim: 8,
        value_dim: 16,
        before: Vec::new(),
        args: vec![k::DType::F32; 4],
        q: operand(0, 4),
        k: operand(1, 4),
        v: operand(2, 4),
        out: operand(3, 4),
        causal: Some(k::Causal {
            offset: n.clone(),
            window: Some(7),
        }),
        score: yields(),
    };
    let stepping = k::Attention {
        before: vec![row.clone()],
        ..attention.clone()
    };
    let gather = k::Gather {
        rows: n,
        cols: 4,
        entries: 9,
        args: k::Encoding::plain([k::DType::I64, k::DType::U32]),
        ids: operand(0, 1),
        table: Arg(1),
        body: yields(),
    };
    let copy = k::Move {
        space,
        dtype: k::DType::F32,
        src: view(2),
        dst: view(2),
    };
    let parts = vec![Kernel::Row(row.clone()), Kernel::Move(copy.clone())];
    vec![
        Kernel::Row(row),
        Kernel::Matmul(matmul),
        Kernel::Matmul(computing),
        Kernel::Attention(attention),
        Kernel::Attention(stepping),
        Kernel::Gather(gather),
        Kernel::Move(copy),
        Kernel::Group(k::Group {
            parts,
            order: k::Order::Chain,
        }),
    ]
}

/// A class and a program with everything that either can have; it computes nothing.
fn every_part() -> (Class, Program) {
    let n = Dim::var(Var(0));
    let ints = vec![IntVar {
        name: "n".into(),
        range: k::Interval { min: 1, max: 9 },
    }];
    let class = Class {
        name: "class".into(),
        ints: ints.clone(),
        max_context: Some(9),
    };
    let literal = Literal::new(vec![1, 2, 3, 4]);
    let kinds = [
        BufferKind::Input(0),
        BufferKind::Output(0),
        BufferKind::State(0),
        BufferKind::Const(literal),
        BufferKind::Temp,
    ];
    let buffer = |kind| Buffer {
        kind,
        dtype: k::DType::F32,
        len: n.clone(),
        max_len: 9,
    };
    let launch = |kernel| Launch {
        label: "label".into(),
        kernel,
        args: vec![Source::Buffer(BufferId(1)), Source::Weight(ParamId(0))],
        in_place: vec![(BufferId(4), BufferId(3))],
    };
    let program = Program {
        ints,
        floors: vec![half(&(&n + &Dim::from(1)))],
        max_context: Some(9),
        inputs: vec![InputDecl {
            name: "x".into(),
            shape: vec![n.clone()],
            dtype: k::DType::F32,
        }],
        outputs: vec![(vec![n.clone()], k::DType::F32)],
        states: vec![State {
            shape: vec![n.clone()],
            capacity: vec![9],
            dtype: k::DType::F32,
            initial: Some(Literal::new(vec![0, 0, 128, 63])),
            rewinds: true,
        }],
        buffers: kinds.map(buffer).to_vec(),
        weights: vec![Weight {
            name: "w".into(),
            encoding: k::DType::BF16.into(),
            shape: vec![3, 4],
            roles: [k::Role::Rows, k::Role::Whole].into_iter().collect(),
        }],
        launches: every_kernel().into_iter().map(launch).collect(),
    };
    (class, program)
}

/// Files outlive a build of the library. If this fails, raise `FORMAT` in the engine's `saved/header.rs`
/// and then write the new number here.
#[test]
fn the_stored_form_is_that_of_its_format_number() {
    let bytes = postcard::to_allocvec(&every_part()).unwrap();
    let hash = Literal::new(bytes).hash();
    assert_eq!(hash, 0xe078_8904_b436_2fa7, "{hash:#018x}");
}
