//! Instructions on matrices that lie spread over a warp.

use super::subset::run;
use crate::reference::Buffer;
use trt_kernel::DType;

/// A product of one warp through shared memory, against the obvious one.
#[test]
fn ldmatrix_and_mma_make_a_product() {
    let body = "
        mov.u32 %r0, %tid.x;
        // 16 x 16 of A to s0, 8 x 16 of B (by columns) to s0+512: 16 bytes a thread.
        mad.lo.u32 %r1, %r0, 16, s0;
        mad.wide.u32 %d3, %r0, 16, %d0;
        ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%d3];
        st.shared.v4.u32 [%r1], {%r2, %r3, %r4, %r5};
        mad.wide.u32 %d3, %r0, 16, %d1;
        setp.lt.u32 %p0, %r0, 16;
        @%p0 ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%d3];
        @%p0 st.shared.v4.u32 [%r1+512], {%r2, %r3, %r4, %r5};
        bar.warp.sync 0xffffffff;
        and.b32 %r6, %r0, 15;
        shr.u32 %r7, %r0, 4;
        mad.lo.u32 %r8, %r6, 32, s0;
        mad.lo.u32 %r8, %r7, 16, %r8;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r8];
        and.b32 %r6, %r0, 7;
        shr.u32 %r7, %r0, 3;
        and.b32 %r7, %r7, 1;
        mad.lo.u32 %r8, %r6, 32, s0;
        mad.lo.u32 %r8, %r7, 16, %r8;
        ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14, %r15}, [%r8+512];
        mov.f32 %f0, 0f3F800000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f0, %f1, %f2, %f3};
        shr.u32 %r6, %r0, 2;
        and.b32 %r7, %r0, 3;
        mad.lo.u32 %r6, %r6, 32, 0;
        mad.lo.u32 %r6, %r7, 8, %r6;
        cvt.u64.u32 %d3, %r6;
        add.s64 %d3, %d3, %d2;
        st.global.v2.f32 [%d3], {%f0, %f1};
        st.global.v2.f32 [%d3+256], {%f2, %f3};";
    let mut args = [
        Buffer::random(DType::BF16, 256, 1),
        Buffer::random(DType::BF16, 128, 2),
        Buffer::zeros(DType::F32, 128),
    ];
    run(32, 1, body, &mut args).unwrap_or_else(|e| panic!("{e}"));
    for row in 0..16 {
        for col in 0..8 {
            let product = |k: i64| args[0].get(row * 16 + k) * args[1].get(col * 16 + k);
            let exact: f64 = 1.0 + (0..16).map(product).sum::<f64>();
            assert!(
                (args[2].get(row * 8 + col) - exact).abs() < 1e-6,
                "{row} {col}"
            );
        }
    }
}

#[test]
fn a_transposed_matrix_load_swaps_rows_and_columns() {
    let body = "
        mov.u32 %r0, %tid.x;
        mad.lo.u32 %r1, %r0, 4, s0;
        mad.wide.u32 %d3, %r0, 4, %d0;
        ld.global.u32 %r2, [%d3];
        st.shared.u32 [%r1], %r2;
        bar.warp.sync 0xffffffff;
        and.b32 %r2, %r0, 7;
        mad.lo.u32 %r2, %r2, 16, s0;
        ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r3}, [%r2];
        mad.wide.u32 %d3, %r0, 4, %d1;
        st.global.u32 [%d3], %r3;";
    let values: Vec<f64> = (0..64).map(f64::from).collect();
    let mut args = [
        Buffer::new(DType::BF16, values),
        Buffer::zeros(DType::BF16, 64),
    ];
    run(32, 1, body, &mut args).unwrap_or_else(|e| panic!("{e}"));
    let expected: Vec<f64> = (0..64).map(|i| f64::from(i % 8 * 8 + i / 8)).collect();
    assert_eq!(args[1].values(), expected);
}
