//! The emulator itself: small texts whose results are known.

use crate::emulator::{self, Call, EmuError, Why};
use crate::reference::Buffer;
use trt_kernel::launch::{EntryLaunch, Extent, Param};
use trt_kernel::ptx::{Emitted, Target};
use trt_kernel::{Arg, DType, Dim};

/// A module with one entry whose arguments' addresses are in `%d0`, `%d1`, …, and that of the
/// counters in `%d9`.
fn module(args: usize, threads: u32, blocks: u32, body: &str) -> Emitted {
    let mut params: Vec<String> = (0..args).map(|i| format!(".param .u64 a{i}")).collect();
    params.push(".param .u64 counters".into());
    let loads: String = (0..args)
        .map(|i| format!("ld.param.u64 %d{i}, [a{i}];\n"))
        .collect();
    let text = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n\
         .extern .shared .align 1024 .b8 dyn[];\n\
         .visible .entry k(\n{}\n)\n.maxntid {threads}, 1, 1\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .b64 %d<16>;\n.reg .f32 %f<16>;\n\
         .shared .align 16 .b8 s0[4096];\n{loads}ld.param.u64 %d9, [counters];\n{body}\nret;\n}}\n",
        params.join(",\n"),
    );
    Emitted {
        text,
        target: Target::Sm80,
        params: (0..args)
            .map(|i| Param::Arg(Arg(i as u16)))
            .chain([Param::Counters])
            .collect(),
        launches: vec![EntryLaunch {
            entry: "k".into(),
            when: vec![],
            grid: [Extent::Fixed(blocks), Extent::Fixed(1), Extent::Fixed(1)],
            block: threads,
            shared: 9216,
            mapped: false,
            sums: Vec::new(),
        }],
        maps: Vec::new(),
        scratch: Dim::from(0),
        limits: Vec::new(),
    }
}

/// Runs a body with its last argument writable, in two orders of turns.
pub fn run(threads: u32, blocks: u32, body: &str, args: &mut [Buffer]) -> Result<(), EmuError> {
    let emitted = module(args.len(), threads, blocks, body);
    let before = args.to_vec();
    let mut last = Ok(());
    for seed in [0, 7] {
        args.clone_from_slice(&before);
        let call = Call {
            written: vec![Arg(args.len() as u16 - 1)],
            seed,
            ..Call::default()
        };
        last = emulator::run(&emitted, &call, args).map(|_| ());
        if last.is_err() {
            break;
        }
    }
    last
}

pub fn why(threads: u32, body: &str) -> Why {
    let mut args = [
        Buffer::random(DType::U32, 256, 1),
        Buffer::zeros(DType::U32, 256),
    ];
    run(threads, 1, body, &mut args).unwrap_err().why
}

/// Runs a body that stores one u32 for each thread to `%d1` at its own place `%d2`.
fn each(threads: u32, body: &str) -> Vec<u32> {
    let place = "mov.u32 %r0, %tid.x;\nmad.wide.u32 %d2, %r0, 4, %d1;\n\
                 mad.wide.u32 %d3, %r0, 4, %d0;\n";
    let mut args = [
        Buffer::random(DType::U32, 256, 1),
        Buffer::zeros(DType::U32, 256),
    ];
    run(threads, 1, &format!("{place}{body}"), &mut args).unwrap_or_else(|e| panic!("{e}"));
    let words = args[1]
        .bytes
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()));
    words.take(threads as usize).collect()
}

#[test]
fn integers_follow_their_signs_and_widths() {
    let cases = [
        (
            "sub.s32 %r1, %r0, 5; shr.s32 %r2, %r1, 1;",
            0u32.wrapping_sub(3),
        ),
        (
            "sub.u32 %r1, %r0, 5; shr.u32 %r2, %r1, 1;",
            0xffff_fffb >> 1,
        ),
        ("mov.u32 %r1, -7; div.s32 %r2, %r1, 2;", -3i32 as u32),
        ("mov.u32 %r1, -7; rem.s32 %r2, %r1, 4;", -3i32 as u32),
        ("mov.u32 %r1, 0x80000001; mul.hi.u32 %r2, %r1, 6;", 3),
        ("mov.u32 %r1, 0x12345678; bfe.u32 %r2, %r1, 8, 8;", 0x56),
        (
            "mov.u32 %r1, 0x1234f678; bfe.s32 %r2, %r1, 8, 8;",
            0xffff_fff6,
        ),
        ("mov.u32 %r1, 0xff; bfi.b32 %r2, %r1, 0, 4, 8;", 0xff0),
        (
            "mov.u32 %r1, 0x44332211; prmt.b32 %r2, %r1, %r1, 0x0123;",
            0x1122_3344,
        ),
        (
            "mov.u32 %r1, 0xf0; lop3.b32 %r2, %r1, 0xcc, 0xaa, 0x96;",
            0xf0 ^ 0xcc ^ 0xaa,
        ),
        ("mov.u32 %r1, 40; mov.u32 %r3, 1; shl.b32 %r2, %r3, %r1;", 0),
        (
            "mov.u32 %r1, 0x8000; cvt.u16.u32 %h0, %r1; cvt.s32.s16 %r2, %h0;",
            0xffff_8000,
        ),
        ("mov.b64 %d4, -2; cvt.u32.u64 %r2, %d4;", -2i32 as u32),
        (
            "mov.u32 %r1, 3; setp.lt.s32 %p0, %r1, -1; selp.b32 %r2, 4, 5, %p0;",
            5,
        ),
        (
            "mov.u32 %r1, 3; setp.lt.u32 %p0|%p1, %r1, -1; selp.b32 %r2, 4, 5, %p1;",
            5,
        ),
    ];
    for (body, expected) in cases {
        let got = each(1, &format!("{body} st.global.u32 [%d2], %r2;"));
        assert_eq!(got[0], expected, "{body}: {:#x}", got[0]);
    }
}

#[test]
fn floats_round_once_and_convert_as_the_hardware() {
    let cases = [
        (
            "fma.rn.f32 %f0, 0f3F800001, 0f3F800001, 0fBF800002;",
            0x2880_0000,
        ),
        ("min.f32 %f0, 0f7FC00000, 0f3F800000;", 0x3f80_0000),
        ("max.NaN.f32 %f0, 0f7FC00000, 0f3F800000;", 0x7fff_ffff),
        ("ex2.approx.ftz.f32 %f0, 0fC3000000;", 0),
        ("cvt.rni.f32.f32 %f0, 0f40200000;", 0x4000_0000),
        (
            "cvt.rzi.s32.f32 %r2, 0fCF800000; mov.b32 %f0, %r2;",
            0x8000_0000,
        ),
        ("cvt.rzi.u32.f32 %r2, 0f7FC00000; mov.b32 %f0, %r2;", 0),
        (
            "cvt.rn.bf16x2.f32 %r2, 0f3F800000, 0f3F818000; mov.b32 %f0, %r2;",
            0x3f80_3f82,
        ),
        (
            "cvt.rn.f16.f32 %h0, 0f477FF000; cvt.f32.f16 %f0, %h0;",
            0x7f80_0000,
        ),
        ("div.rn.f32 %f0, 0f3F800000, 0f40400000;", 0x3eaa_aaab),
        (
            "mov.f32 %f1, 0f7FC00000; setp.neu.f32 %p0, %f1, %f1; selp.f32 %f0, %f1, 0f00000000, %p0;",
            0x7fc0_0000,
        ),
    ];
    for (body, expected) in cases {
        let got = each(1, &format!("{body} st.global.f32 [%d2], %f0;"));
        assert_eq!(got[0], expected, "{body}: {:#x}", got[0]);
    }
}

#[test]
fn lanes_that_part_meet_again() {
    let body = "
        and.b32 %r1, %r0, 1;
        setp.eq.u32 %p0, %r1, 0;
        mov.u32 %r2, 0;
        @%p0 bra $odd;
        add.u32 %r2, %r2, 100;
        bra $join;
    $odd:
        add.u32 %r2, %r2, 200;
    $join:
        shfl.sync.bfly.b32 %r2, %r2, 1, 31, 0xffffffff;
        st.global.u32 [%d2], %r2;";
    assert_eq!(each(32, body)[..4], [100, 200, 100, 200]);
}

#[test]
fn loops_may_run_longer_for_some_lanes() {
    let body = "
        mov.u32 %r1, 0; mov.u32 %r2, 0;
    $top:
        setp.gt.u32 %p0, %r1, %r0;
        @%p0 bra $out;
        add.u32 %r2, %r2, %r1;
        add.u32 %r1, %r1, 1;
        bra $top;
    $out:
        bar.warp.sync 0xffffffff;
        st.global.u32 [%d2], %r2;";
    let expected: Vec<u32> = (0..32).map(|n| n * (n + 1) / 2).collect();
    assert_eq!(each(32, body), expected);
}

#[test]
fn shuffles_move_values_within_segments() {
    let ask = |mode: &str, b: u32, c: u32| {
        each(
            32,
            &format!(
                "shfl.sync.{mode}.b32 %r2|%p0, %r0, {b}, {c}, 0xffffffff; @!%p0 add.u32 %r2, %r2, 1000; st.global.u32 [%d2], %r2;"
            ),
        )
    };
    let whole = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<u32>>();
    assert_eq!(ask("idx", 5, 31), [5; 32]);
    assert_eq!(ask("bfly", 16, 31), whole(|l| l ^ 16));
    assert_eq!(
        ask("down", 3, 31),
        whole(|l| if l + 3 < 32 { l + 3 } else { l + 1000 })
    );
    assert_eq!(
        ask("up", 3, 0),
        whole(|l| if l >= 3 { l - 3 } else { l + 1000 })
    );
    // Segments of eight: the mask of the segment is in bits 8 to 12.
    assert_eq!(ask("idx", 2, 0x181f), whole(|l| l / 8 * 8 + 2));
    assert_eq!(
        ask("down", 1, 0x181f),
        whole(|l| if l % 8 < 7 { l + 1 } else { l + 1000 })
    );
}

#[test]
fn votes_and_reductions_fold_over_the_members() {
    let body = "
        setp.lt.u32 %p0, %r0, 3;
        vote.sync.ballot.b32 %r2, %p0, 0xffffffff;
        vote.sync.any.pred %p1, %p0, 0xffffffff;
        redux.sync.add.u32 %r3, %r0, 0xffffffff;
        @%p1 add.u32 %r2, %r2, %r3;
        st.global.u32 [%d2], %r2;";
    assert_eq!(each(32, body), [7 + 496; 32]);
}

#[test]
fn barriers_order_shared_memory_between_warps() {
    let body = "
        mov.u32 %r1, s0;
        mad.lo.u32 %r2, %r0, 4, %r1;
        st.shared.u32 [%r2], %r0;
        bar.sync 0;
        sub.u32 %r3, 127, %r0;
        mad.lo.u32 %r2, %r3, 4, %r1;
        ld.shared.u32 %r4, [%r2];
        st.global.u32 [%d2], %r4;";
    assert_eq!(each(128, body), (0..128).rev().collect::<Vec<u32>>());
}

#[test]
fn dynamic_shared_memory_holds_vectors() {
    let body = "
        mad.lo.u32 %r1, %r0, 16, dyn;
        st.shared.v4.u32 [%r1], {%r0, 1, %r0, 2};
        ld.shared.v2.u32 {%r2, %r3}, [%r1+8];
        add.u32 %r2, %r2, %r3;
        st.global.u32 [%d2], %r2;";
    assert_eq!(each(32, body), (2..34).collect::<Vec<u32>>());
}

#[test]
fn asynchronous_copies_fill_up_with_zeros() {
    let body = "
        mad.lo.u32 %r1, %r0, 16, s0;
        mad.wide.u32 %d4, %r0, 16, %d0;
        and.b32 %r2, %r0, 3;
        shl.b32 %r2, %r2, 2;
        cp.async.cg.shared.global [%r1], [%d4], 16, %r2;
        cp.async.commit_group;
        cp.async.wait_group 0;
        bar.sync 0;
        ld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r1];
        add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5; add.u32 %r3, %r3, %r6;
        st.global.u32 [%d2], %r3;";
    let words = Buffer::random(DType::U32, 256, 1).values();
    let sum = |t: usize| words[4 * t..4 * t + t % 4].iter().sum::<f64>() as u32;
    assert_eq!(each(64, body), (0..64).map(sum).collect::<Vec<u32>>());
}

#[test]
fn atomics_of_many_threads_add_up() {
    let body = "
        atom.global.add.u32 %r2, [%d1+512], 1;
        red.global.add.u32 [%d1+516], %r0;
        bar.sync 0;
        mov.u32 %r3, 0;
        setp.eq.u32 %p0, %r0, 0;
        @%p0 ld.global.u32 %r3, [%d1+512];
        @%p0 ld.global.u32 %r4, [%d1+516];
        @%p0 add.u32 %r3, %r3, %r4;
        st.global.u32 [%d2], %r3;";
    assert_eq!(each(64, body)[0], 64 + 63 * 32);
}

#[test]
fn shared_memory_starts_afresh_in_each_block() {
    let body = "
        mov.u32 %r0, %ctaid.x;
        mad.wide.u32 %d2, %r0, 4, %d1;
        st.shared.u32 [s0], %r0;
        ld.shared.u32 %r1, [s0];
        mad.lo.u32 %r2, %r0, 16, s0;
        cp.async.cg.shared.global [%r2], [%d0], 16;
        st.global.u32 [%d2], %r1;";
    let mut args = [Buffer::zeros(DType::U32, 4), Buffer::zeros(DType::U32, 3)];
    run(1, 3, body, &mut args).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(args[1].values(), [0.0, 1.0, 2.0]);
}

#[test]
fn names_in_a_scope_are_its_own() {
    let body = "
        mov.u32 %r1, 1;
        {
            .reg .b32 %r<2>;
            .shared .align 4 .b8 s0[4];
            mov.u32 %r1, 5;
            bra $end;
            mov.u32 %r1, 6;
        $end:
            st.shared.u32 [s0], %r1;
        }
        {
            .reg .b32 %r<2>;
            mov.u32 %r1, 7;
        $end:
            st.shared.u32 [s0+4], %r1;
        }
        bar.sync 0;
        ld.shared.u32 %r2, [s0+4];
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%d2], %r1;";
    assert_eq!(each(1, body), [8]);
}
