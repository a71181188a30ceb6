//! Products fed by tensor maps, against those fed by threads.

use crate::cases::{self, Case, Size, arguments};
use crate::cuda;
use crate::kernels::{OnDevice, Rows, cuts, target};
use crate::models::{bits, compile, logits, tall, tokens};
use candle_core::DType;
use candle_trt::Request;
use candle_trt::device::{Cuda, Device, Work};
use candle_trt::kernel::Kernel;
use candle_trt::kernel::ptx::Target;
use std::sync::Arc;

/// The first device without and with tensor maps; nothing where it has none.
fn both() -> Option<(Arc<dyn Device>, Arc<Cuda>)> {
    let plain = cuda()?;
    if target() != Target::Sm90a {
        eprintln!("not run: the device has no tensor maps");
        return None;
    }
    let mapped = Cuda::new(0).and_then(Cuda::with_tensor_maps);
    let mapped = mapped.expect("a device");
    assert!(mapped.tensor_maps(), "the driver makes none");
    Some((plain, Arc::new(mapped)))
}

/// Calls of products that are fed by maps.
fn fed() -> Vec<Case> {
    let all = cases::cases("matmul", Target::Sm90aMaps, Size::wanted()).into_iter();
    all.filter(|c| c.entries.iter().any(|e| e.starts_with("tma")))
        .collect()
}

#[test]
fn products_fed_by_maps_have_the_bits_of_those_fed_by_threads() {
    let Some((plain, mapped)) = both() else {
        return;
    };
    let streams = [plain.stream("test"), mapped.stream("test")];
    let [on_plain, on_mapped] = streams.map(|s| s.expect("a stream"));
    let cases = fed();
    for case in &cases {
        let args = arguments(case, 3);
        let without = OnDevice::new(&*plain, on_plain, case, &args).expect("it loads");
        let with = OnDevice::new(&*mapped, on_mapped, case, &args).expect("it loads");
        let want = without.run(&args, &Rows::All).expect("it runs");
        let cut = match &case.kernel {
            Kernel::Matmul(m) if m.ranged => cuts(case, m),
            _ => Vec::new(),
        };
        for rows in cut.into_iter().chain([Rows::All]) {
            let before = mapped.mapped_launches();
            let got = with.run(&args, &rows).expect("it runs");
            assert!(want == got, "{} cut as {rows:?}", case.name);
            assert!(mapped.mapped_launches() > before, "{}: no maps", case.name);
        }
    }
    assert!(!cases.is_empty());
}

#[test]
fn tiles_that_no_map_shows_are_fed_by_threads() {
    let Some((plain, mapped)) = both() else {
        return;
    };
    let stream = plain.stream("test").expect("a stream");
    let on_mapped = mapped.stream("test").expect("a stream");
    let tiled = |c: &Case| matches!(&c.kernel, Kernel::Matmul(m) if m.ranged);
    let case = fed().into_iter().find(tiled).expect("a ranged product");
    let Kernel::Matmul(m) = &case.kernel else {
        unreachable!("as found");
    };
    let n = m.n.size(&case.env);
    let args = arguments(&case, 5);
    let without = OnDevice::new(&*plain, stream, &case, &args).expect("it loads");
    let want = without.run(&args, &Rows::All).expect("it runs");

    let with = OnDevice::new(&*mapped, on_mapped, &case, &args).expect("it loads");
    let mut tiles = with
        .tiles(&(0..n), n.div_ceil(2).next_multiple_of(64))
        .expect("tiles");
    // Half a box off from the first tile.
    let src = tiles.places[1].clone();
    let room = mapped.allocate(src.len() + 64).expect("memory").whole();
    let dst = room.slice(64..room.len()).expect("a slice");
    tiles.places[1] = dst.clone();
    mapped
        .submit(on_mapped, Work::Copy { dst, src })
        .expect("a copy");
    let before = mapped.mapped_launches();
    with.launch(vec![tiles]).expect("it runs");
    assert!(want == with.read().expect("it is read"), "{}", case.name);
    assert_eq!(mapped.mapped_launches(), before, "maps were made");
}

#[test]
fn a_prompt_has_the_same_bits_with_tensor_maps_at_every_budget() {
    let Some((plain, mapped)) = both() else {
        return;
    };
    let model = tall(4096);
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::BF16, 7, 2)
        .expect("a checkpoint");
    let without = compile(dir.path(), &model, DType::BF16, plain, true);
    let with = compile(dir.path(), &model, DType::BF16, mapped.clone(), true);
    let want = bits(&logits(&without, 500));
    for request in [Request::Full, Request::Minimum] {
        with.set_device_budget(request).expect("a budget");
        let before = mapped.mapped_launches();
        assert!(want == bits(&logits(&with, 500)), "other bits at {request}");
        assert!(mapped.mapped_launches() > before, "no maps at {request}");
        // The same call again and again, which is recorded where all weights are resident.
        let mut session = with.session().expect("a session");
        for round in 0..4 {
            session.reset();
            let got = session.prefill(&tokens(500)).expect("a prompt");
            assert!(
                want[..1] == bits(&[got]),
                "other bits in round {round} at {request}"
            );
        }
    }
}
