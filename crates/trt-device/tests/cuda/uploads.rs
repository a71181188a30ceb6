//! Bytes of mapped files on their way to the device.

use super::*;

#[test]
fn uploads_bring_what_the_file_holds_whichever_way_they_go() {
    let bytes = pattern((70 << 20) + 12345, 3);
    for budget in [u64::MAX, 40 << 20, 0] {
        let Some((_, _alone)) = cuda() else {
            return;
        };
        let device = Cuda::with_host_budget(0, budget).unwrap();
        let stream = device.stream("weights").unwrap();
        let file = mapped(&device, &bytes);
        for range in [0..1, 5..5, (31 << 20) + 7..(66 << 20) + 1, 0..bytes.len()] {
            let src = file.whole().slice(range.clone()).unwrap();
            let dst = device.allocate(range.len()).unwrap().whole();
            let work = Work::Upload {
                dst: dst.clone(),
                src,
            };
            device.submit(stream, work).unwrap();
            assert!(
                read(&device, stream, &dst) == bytes[range.clone()],
                "{range:?}"
            );
        }
        let transfers = device.transfers();
        println!("budget {budget}: {transfers:?}");
        assert!(transfers.registered <= budget);
        if budget == 0 {
            assert_eq!(transfers.direct, 0);
        }
        drop(file);
        assert_eq!(device.transfers().registered, 0);
    }
}

#[test]
fn uploads_go_around_what_the_driver_clears_and_bring_the_same_bytes() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let stream = device.stream("copies").unwrap();
    let bytes = pattern(8 << 20, 3);
    let file = mapped(&device, &bytes);
    let memory = device.allocate(bytes.len()).unwrap();
    let upload = |range: std::ops::Range<usize>| {
        let dst = memory.whole().slice(0..range.len()).unwrap();
        write(&device, stream, &dst, &vec![0x55; range.len()]);
        let src = file.whole().slice(range.clone()).unwrap();
        let work = Work::Upload {
            dst: dst.clone(),
            src,
        };
        let before = device.transfers().pulled;
        device.submit(stream, work).unwrap();
        let pulled = device.transfers().pulled - before;
        assert!(
            read(&device, stream, &dst) == bytes[range.clone()],
            "{range:?}"
        );
        pulled
    };
    // The file is known to the driver, and nothing was given back.
    assert_eq!(upload(0..bytes.len()), 0);
    let much = device.free_memory().unwrap() as usize / 4;
    let space = device.reserve(much).unwrap();
    let give_back = || {
        device.commit(&space, much).unwrap();
        device.commit(&space, 0).unwrap();
    };
    for range in [0..8 << 20, 8..1 << 20, 104..128] {
        give_back();
        assert_eq!(upload(range.clone()), range.len() as u64);
    }
    give_back();
    assert_eq!(upload(4..1 << 20), 0, "not in words");
    assert_eq!(upload(0..1001), 0, "not in words");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(upload(0..1 << 20), 0, "it is over");
}
