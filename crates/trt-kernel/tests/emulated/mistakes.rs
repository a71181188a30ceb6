//! Mistakes that the emulator must find: each of these texts is wrong in one way.

use super::subset::{run, why};
use crate::emulator::Why;
use crate::reference::Buffer;
use trt_kernel::DType;

#[test]
fn unknown_text_is_refused() {
    for body in [
        "frobnicate.u32 %r0, %r0;",
        "add.rz.f32 %f0, %f0, %f0;",
        "ld.local.u32 %r0, [%d0];",
        "ld.global.magic.u32 %r0, [%d0];",
        "mov.u32 %r0, %clock;",
        "mov.u32 %r99, 0;",
        "bra $nowhere;",
        "add.u32 %r0, %r0;",
        "mov.u32 %r0, 0x1ffffffff;",
        "mov.u32 %d0, 0;",
    ] {
        let why = why(32, body);
        assert!(matches!(why, Why::Text(_)), "{body}: {why}");
    }
}

#[test]
fn memory_outside_of_arguments_is_out_of_bounds() {
    for body in [
        "ld.global.u32 %r0, [%d0+1024];",
        "ld.global.u32 %r0, [%d0+-4];",
        "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0+1016];",
        "mov.b64 %d2, 0; ld.global.u32 %r0, [%d2];",
        "st.global.u32 [%d1+1024], 0;",
        "ld.shared.u32 %r0, [s0+4096];",
        "st.shared.u32 [dyn+9216], 0;",
        "ld.param.u64 %d2, [counters+8];",
    ] {
        let why = why(32, body);
        let found = matches!(why, Why::Bounds { .. } | Why::Misaligned { .. });
        assert!(found, "{body}: {why}");
    }
}

#[test]
fn misaligned_and_read_only_accesses_are_found() {
    let found = why(32, "ld.global.u32 %r0, [%d0+2];");
    assert!(matches!(found, Why::Misaligned { .. }), "{found}");
    let found = why(32, "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0+8];");
    assert!(matches!(found, Why::Misaligned { .. }), "{found}");
    let found = why(32, "st.global.u32 [%d0], 1;");
    assert!(matches!(found, Why::ReadOnly { .. }), "{found}");
}

#[test]
fn reading_what_nothing_wrote_is_found() {
    let found = why(32, "add.u32 %r0, %r1, 1;");
    assert_eq!(
        found,
        Why::Register {
            register: "%r1".into()
        }
    );
    let some =
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 5; @%p0 mov.u32 %r1, 3; add.u32 %r2, %r1, 1;";
    assert_eq!(
        why(32, some),
        Why::Register {
            register: "%r1".into()
        }
    );
    let found = why(32, "ld.shared.u32 %r0, [s0];");
    assert!(matches!(found, Why::Unwritten { .. }), "{found}");
}

#[test]
fn divergence_where_the_whole_warp_is_needed_is_found() {
    let half = "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 16;";
    for what in ["@%p0 bar.sync 0;", "@%p0 bar.warp.sync 0xffffffff;"] {
        let found = why(32, &format!("{half} {what}"));
        assert!(matches!(found, Why::Divergent { .. }), "{what}: {found}");
    }
    let shuffle = "@%p0 shfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xffffffff;";
    assert!(matches!(
        why(32, &format!("{half} {shuffle}")),
        Why::Lane { .. }
    ));
    let shuffle = "@%p0 shfl.sync.idx.b32 %r1, %r0, 20, 31, 0x0000ffff;";
    let found = why(32, &format!("{half} {shuffle}"));
    assert!(matches!(found, Why::Lane { lane: 20, .. }), "{found}");
}

#[test]
fn a_barrier_that_a_warp_never_reaches_is_a_deadlock() {
    let body = "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 32; @%p0 bra $l; bar.sync 0, 64; $l:";
    let found = why(64, body);
    assert!(matches!(found, Why::Deadlock(_)), "{found}");
}

#[test]
fn unordered_accesses_of_shared_memory_are_races() {
    let own = "mov.u32 %r0, %tid.x; mad.lo.u32 %r1, %r0, 4, s0; xor.b32 %r2, %r0, 1; \
               mad.lo.u32 %r2, %r2, 4, s0; xor.b32 %r3, %r0, 32; mad.lo.u32 %r3, %r3, 4, s0;";
    for body in [
        // Read after write within a warp, and between warps with only a warp barrier.
        "st.shared.u32 [%r1], %r0; ld.shared.u32 %r4, [%r2];",
        "st.shared.u32 [%r1], %r0; bar.warp.sync -1; ld.shared.u32 %r4, [%r3];",
        // Write after read.
        "st.shared.u32 [%r1], %r0; bar.sync 0; ld.shared.u32 %r4, [%r2]; st.shared.u32 [%r1], %r0;",
        "st.shared.u32 [%r1], %r0; bar.sync 0; ld.shared.u32 %r4, [%r3]; bar.warp.sync -1; st.shared.u32 [%r1], %r0;",
        // Write after write.
        "st.shared.u32 [s0], %r0;",
    ] {
        let found = why(64, &format!("{own} {body}"));
        assert!(
            matches!(found, Why::Race { .. } | Why::Unwritten { .. }),
            "{body}: {found}"
        );
    }
    let fine = "st.shared.u32 [%r1], %r0; bar.sync 0; ld.shared.u32 %r4, [%r3]; bar.sync 0; \
                st.shared.u32 [%r3], %r0; bar.warp.sync -1; st.shared.u32 [s0+2048], 5;";
    let mut args = [
        Buffer::zeros(DType::U32, 256),
        Buffer::zeros(DType::U32, 256),
    ];
    run(64, 1, &format!("{own} {fine}"), &mut args).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_copy_that_was_not_waited_for_is_found() {
    let start = "mov.u32 %r0, %tid.x; mad.lo.u32 %r1, %r0, 16, s0; mad.wide.u32 %d2, %r0, 16, %d0; \
                 cp.async.cg.shared.global [%r1], [%d2], 16; cp.async.commit_group;";
    let none = why(32, &format!("{start} ld.shared.u32 %r2, [%r1];"));
    assert!(matches!(none, Why::Pending { .. }), "{none}");
    let one = why(
        32,
        &format!("{start} cp.async.wait_group 1; bar.sync 0; ld.shared.u32 %r2, [%r1];"),
    );
    assert!(matches!(one, Why::Pending { .. }), "{one}");
    // Waiting makes them visible to the thread itself; others need a barrier as well.
    let other = "xor.b32 %r3, %r1, 16; cp.async.wait_all; ld.shared.u32 %r2, [%r3];";
    let other = why(32, &format!("{start} {other}"));
    assert!(matches!(other, Why::Race { .. }), "{other}");
}

#[test]
fn blocks_and_threads_that_share_global_memory_without_order_race() {
    let mut args = [
        Buffer::zeros(DType::U32, 256),
        Buffer::zeros(DType::U32, 256),
    ];
    let body = "mov.u32 %r0, %ctaid.x; st.global.u32 [%d1], %r0;";
    let found = run(1, 2, body, &mut args).unwrap_err();
    assert!(matches!(found.why, Why::Race { .. }), "{found}");
    let body = "mov.u32 %r0, %ctaid.x; mad.wide.u32 %d2, %r0, 4, %d1; \
                ld.global.u32 %r1, [%d1]; st.global.u32 [%d2], %r0;";
    let found = run(1, 3, body, &mut args).unwrap_err();
    assert!(matches!(found.why, Why::Race { .. }), "{found}");
    let body = "mov.u32 %r0, %tid.x; mad.wide.u32 %d2, %r0, 4, %d1; st.global.u32 [%d2], %r0; \
                bar.sync 0; xor.b32 %r0, %r0, 32; mad.wide.u32 %d2, %r0, 4, %d1; ld.global.u32 %r1, [%d2];";
    run(64, 1, body, &mut args).unwrap_or_else(|e| panic!("{e}"));
}

/// Four blocks of two warps write two words each; the block that finds three counted adds up the
/// first warps' or, with `by` 32, the second warps' words. `before` and `after` stand around the
/// atomic of the first thread, and `between` before it for all threads.
fn last_block(between: &str, before: &str, atom: &str, after: &str, by: u32) -> String {
    format!(
        "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %tid.x;
        mad.lo.u32 %r2, %r0, 64, %r1;
        mad.wide.u32 %d2, %r2, 4, %d1;
        st.global.u32 [%d2], %r2;
        {between}
        setp.ne.u32 %p0, %r1, 0;
        @%p0 bra $counted;
        {before}
        {atom} %r3, [%d9], 3;
        {after}
        st.shared.u32 [s0], %r3;
    $counted:
        bar.sync 0;
        ld.shared.u32 %r3, [s0];
        setp.ne.u32 %p0, %r3, 3;
        @%p0 ret;
        setp.ne.u32 %p0, %r1, {by};
        @%p0 ret;
        ld.global.u32 %r4, [%d1+{first}]; ld.global.u32 %r5, [%d1+{second}];
        add.u32 %r4, %r4, %r5;
        st.global.u32 [%d1+1024], %r4;",
        first = 4 * by,
        second = 4 * by + 256,
    )
}

#[test]
fn the_last_block_may_read_what_the_others_released() {
    let (bar, fence) = ("bar.sync 0;", "fence.acq_rel.gpu;");
    let (relaxed, strong) = ("atom.global.inc.u32", "atom.acq_rel.gpu.global.inc.u32");
    let (release, acquire) = (
        "atom.release.gpu.global.inc.u32",
        "atom.acquire.gpu.global.inc.u32",
    );
    let mut args = [Buffer::zeros(DType::U32, 1), Buffer::zeros(DType::U32, 264)];
    for by in [0, 32] {
        for (before, atom, after) in [
            ("", strong, ""),
            (fence, relaxed, fence),
            (fence, acquire, ""),
            ("", release, fence),
        ] {
            let body = last_block(bar, before, atom, after, by);
            run(64, 4, &body, &mut args).unwrap_or_else(|e| panic!("{e}\n{body}"));
            assert_eq!(args[1].get(256), f64::from(64 + 2 * by));
        }
        for (between, before, atom, after) in [
            // Nothing orders; only one side does; the fence comes before what it should order.
            (bar, "", relaxed, ""),
            (bar, fence, relaxed, ""),
            (bar, "", relaxed, fence),
            (bar, "", release, ""),
            (bar, "", acquire, ""),
            (
                "fence.acq_rel.gpu; st.global.u32 [%d2], %r3; bar.sync 0;",
                "",
                relaxed,
                fence,
            ),
        ] {
            let between = between.replace("%r3", "%r1");
            let body = last_block(&between, before, atom, after, by);
            let found = run(64, 4, &body, &mut args).unwrap_err();
            assert!(matches!(found.why, Why::Race { .. }), "{found}\n{body}");
        }
    }
    // Without the barrier the second warp's words may come after the first thread's atomic.
    let body = last_block("", "", strong, "", 32);
    let found = run(64, 4, &body, &mut args).unwrap_err();
    assert!(matches!(found.why, Why::Race { .. }), "{found}");
}

#[test]
fn a_counter_that_is_not_zero_again_is_found() {
    let mut args = [Buffer::zeros(DType::U32, 1)];
    let count = |most: u32| format!("atom.global.inc.u32 %r0, [%d9+8], {most};");
    run(1, 3, &count(2), &mut args).unwrap_or_else(|e| panic!("{e}"));
    let found = run(1, 3, &count(3), &mut args).unwrap_err();
    assert_eq!(found.why, Why::Wrong("counter 2 is left at 3".into()));
}

#[test]
fn arguments_are_not_touched_before_the_launch_ahead_has_ended() {
    let wait = "griddepcontrol.wait;";
    let mut args = [
        Buffer::random(DType::U32, 4, 1),
        Buffer::zeros(DType::U32, 4),
    ];
    for access in [
        "ld.global.u32 %r0, [%d0];",
        "st.global.u32 [%d1], 1;",
        "red.global.add.u32 [%d1], 1;",
        "cp.async.ca.shared.global [s0], [%d0], 4; cp.async.wait_all;",
    ] {
        let after = format!("{wait} {access}");
        run(1, 1, &after, &mut args).unwrap_or_else(|e| panic!("{e}"));
        let found = run(1, 1, &format!("{access} {wait}"), &mut args).unwrap_err();
        assert!(matches!(found.why, Why::Wrong(_)), "{found}");
    }
}

#[test]
fn an_error_says_where() {
    let mut args = [Buffer::zeros(DType::U32, 4), Buffer::zeros(DType::U32, 4)];
    let body = "mov.u32 %r0, %tid.x;\nmad.wide.u32 %d2, %r0, 4, %d1;\n@%p0 ret;";
    let error = run(2, 1, body, &mut args).unwrap_err();
    assert_eq!((&*error.entry, &*error.text), ("k", "@%p0 ret;"));
    let body = "mov.u32 %r0, %tid.x;\nmad.wide.u32 %d2, %r0, 4, %d1;\nst.global.u32 [%d2+4], %r0;";
    let error = run(4, 2, body, &mut args).unwrap_err();
    assert_eq!((error.block, error.thread), (Some([0, 0, 0]), Some(3)));
    assert!(
        error.to_string().contains("a1 (16 bytes; this is at +16)"),
        "{error}"
    );
}

/// A product of a warp group over ones, from its parts: the fence of shared memory, that of
/// registers, and what stands between its start and the wait.
fn product(proxy: &str, fence: &str, between: &str) -> String {
    format!(
        "mov.u32 %r0, %tid.x;
        mad.wide.u32 %d2, %r0, 4, %d1;
        mad.lo.u32 %r1, %r0, 4, dyn;
        mov.u32 %r2, 0;
    $fill:
        st.shared.u32 [%r1], 0x3f803f80;
        add.u32 %r1, %r1, 512;
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p0, %r2, 18;
        @%p0 bra $fill;
        {proxy}
        bar.sync 0;
        shr.u32 %r1, dyn, 4;
        cvt.u64.u32 %d3, %r1;
        or.b64 %d3, %d3, 0x4000004000010000;
        add.s64 %d4, %d3, 512;
        mov.f32 %f0, 0f3F800000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
        {fence}
        wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%f0, %f1, %f2, %f3}}, %d3, %d4, 1, 1, 1, 0, 0;
        wgmma.commit_group.sync.aligned;
        {between}
        wgmma.wait_group.sync.aligned 0;
        st.global.f32 [%d2], %f3;"
    )
}

#[test]
fn products_of_warp_groups_are_fenced_and_waited_for() {
    let (proxy, fence) = ("fence.proxy.async;", "wgmma.fence.sync.aligned;");
    let mut args = [Buffer::zeros(DType::F32, 1), Buffer::zeros(DType::F32, 128)];
    run(128, 1, &product(proxy, fence, ""), &mut args).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(args[1].values(), [17.0; 128]);
    for (proxy, fence, between) in [
        ("", fence, ""),
        (proxy, "", ""),
        (proxy, fence, "st.global.f32 [%d2], %f3;"),
        (proxy, fence, "mov.f32 %f3, 0f00000000;"),
        (proxy, fence, "bar.sync 0; st.shared.u32 [dyn], 0;"),
    ] {
        let found = why(128, &product(proxy, fence, between));
        let known = matches!(found, Why::Wrong(_) | Why::Pending { .. });
        assert!(known, "{proxy} {fence} {between}: {found}");
    }
}
