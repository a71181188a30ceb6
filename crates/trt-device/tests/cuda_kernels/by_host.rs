//! Kernels that the device lacks.

use super::*;

#[test]
fn what_the_device_lacks_the_host_computes_on_copies() {
    let Some(device) = cuda() else { return };
    let device = device.without("matmul").without("row").without("gather");
    let stream = device.stream("s").unwrap();
    let x = place(&device, stream, bytes(&values(K, 8)));
    let weight = values(N * K, 7);
    let on_device = place(&device, stream, bytes(&weight));
    let product = device.load(&project()).unwrap();
    assert!(product.by_host().is_some_and(|why| why.contains("matmul")));
    let out = device.allocate(4 * N).unwrap().whole();
    let mut work = launch(&device, &product, 0, &[&x, &on_device, &out]);
    device.submit(stream, work.clone()).unwrap();
    let whole = read(&device, stream, &out).unwrap();
    let dot = |row: &[f32]| row.iter().zip(&values(K, 8)).map(|(a, b)| a * b).sum();
    close(
        &whole,
        &weight.chunks_exact(K).map(dot).collect::<Vec<f32>>(),
    );
    // Row ranges, each over its own tile; what comes before on the stream is done first.
    write(&device, stream, &out, vec![0; 4 * N]);
    for rows in [0..128, 128..N] {
        let place = on_device
            .slice(4 * K * rows.start..4 * K * rows.end)
            .unwrap();
        let (step, places) = (rows.len(), vec![place]);
        if let Work::Launch { tiles, .. } = &mut work {
            *tiles = vec![Tiles { rows, step, places }];
        }
        device.submit(stream, work.clone()).unwrap();
    }
    assert_eq!(read(&device, stream, &out).unwrap(), whole);
    // The result of one is the operand of the next, in place, and then of the device's own.
    let gated = device.load(&gate()).unwrap();
    let twice = launch(&device, &gated, N as i64, &[&out, &out, &out]);
    device.submit(stream, twice).unwrap();
    let own = cuda().unwrap();
    let (stream_of_own, copy) = (own.stream("s").unwrap(), bytes(&whole));
    let copy = place(&own, stream_of_own, copy);
    let executable = own.load(&gate()).unwrap();
    let expected = launch(&own, &executable, N as i64, &[&copy, &copy, &copy]);
    own.submit(stream_of_own, expected).unwrap();
    let expected = read(&own, stream_of_own, &copy).unwrap();
    close(&read(&device, stream, &out).unwrap(), &expected);
    // A table is read in its mapping; a bad id is an error of the launch.
    let table = mapped(&device, &bytes(&values(ENTRIES * COLS, 3)));
    let picked = device.load(&pick()).unwrap();
    let rows = device.allocate(4 * 2 * COLS).unwrap().whole();
    for (ids, fine) in [([7u32, 49], true), ([7, 50], false)] {
        let ids = ids.iter().flat_map(|i| i.to_le_bytes()).collect();
        let ids = place(&device, stream, ids);
        let work = launch(&device, &picked, 2, &[&ids, &table.whole(), &rows]);
        match device.submit(stream, work) {
            Ok(()) => assert!(fine),
            Err(error) => assert!(!fine && error.to_string().contains("50"), "{error}"),
        }
    }
    let last = &values(ENTRIES * COLS, 3)[49 * COLS..];
    assert_eq!(&read(&device, stream, &rows).unwrap()[COLS..], last);
    let recorded = device.record(vec![launch(&device, &product, 0, &[&x, &on_device, &out])]);
    assert!(matches!(recorded, Err(Error::NotRecordable { .. })));
}
