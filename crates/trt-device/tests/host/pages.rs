//! Mapped files: what their pages do, and copies of them.

use super::*;

#[test]
fn an_upload_copies_and_leaves_no_pages_behind() {
    let device = Host::discrete();
    let stream = device.stream("test").unwrap();
    let len = (32 << 20) + 12_345;
    let (map, content) = mapped(&device, len);
    let device_memory = device.allocate(len - 999).unwrap().whole();
    let before = resident(&map);
    let upload = Work::Upload {
        dst: device_memory.clone(),
        src: map.whole().slice(999..len).unwrap(),
    };
    device.submit(stream, upload).unwrap();
    assert_eq!(
        read(&device, stream, &device_memory).unwrap(),
        content[999..]
    );
    assert_eq!((before, resident(&map)), (0, 0));
}

/// Resident bytes of a mapping, as the system counts them for this process.
fn resident(map: &Memory) -> u64 {
    let start = format!("{:x}-", map.whole().address());
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = text.lines().skip_while(|l| !l.starts_with(&start));
    let rss = lines.find_map(|l| l.strip_prefix("Rss:")).unwrap();
    rss.trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<u64>()
        .unwrap()
        << 10
}

const PAGE: u64 = 4096;

#[cfg(target_os = "linux")]
#[test]
fn populating_and_discarding_move_the_pages_of_the_slice() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let (map, _) = mapped(&device, 16 << 20);
    let run = |work: Work| {
        device.submit(stream, work).unwrap();
        device.synchronize(stream).unwrap();
        resident(&map)
    };
    let quarter = |i: usize| {
        let range = (i * 4) << 20..(i * 4 + 4) << 20;
        map.whole().slice(range).unwrap()
    };
    assert_eq!(run(Work::Discard(map.whole())), 0);
    let one = run(Work::Populate(quarter(1)));
    assert!((4 << 20..(4 << 20) + 2 * PAGE).contains(&one), "{one}");
    assert_eq!(run(Work::Discard(quarter(1))), 0);
    assert_eq!(run(Work::Populate(map.whole())), 16 << 20);
    let rest = run(Work::Discard(quarter(2)));
    assert!(((12 << 20) - 2 * PAGE..=12 << 20).contains(&rest), "{rest}");
    assert_eq!(run(Work::Discard(map.whole())), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn tiles_fetched_in_any_order_leave_nothing_behind() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let len = (8 << 20) + 1000;
    let (map, _) = mapped(&device, len);
    let cuts = [0, 1_000_001, 1_000_100, 2_345_678, 5_000_000, len];
    let tile = |i: usize| map.whole().slice(cuts[i]..cuts[i + 1]).unwrap();
    let run = |work: Work| {
        device.submit(stream, work).unwrap();
        device.synchronize(stream).unwrap();
        resident(&map)
    };
    for i in [3, 0, 2, 1, 4, 0] {
        let (held, size) = (run(Work::Populate(tile(i))), tile(i).len() as u64);
        assert!(held >= size && held < size + 2 * PAGE, "{held} for {size}");
        assert_eq!(run(Work::Discard(tile(i))), 0);
    }
    // Beside tiles that stay, too.
    run(Work::Populate(tile(0)));
    let kept = run(Work::Populate(tile(3)));
    for i in [1, 4, 2, 1] {
        run(Work::Populate(tile(i)));
        assert_eq!(run(Work::Discard(tile(i))), kept);
    }
    run(Work::Discard(tile(3)));
    assert_eq!(run(Work::Discard(tile(0))), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_scan_in_place_holds_one_tile_at_a_time() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let tile = 4 << 20;
    let (map, content) = mapped(&device, 16 * tile);
    device.submit(stream, Work::Discard(map.whole())).unwrap();
    device.synchronize(stream).unwrap();
    let out = device.allocate(tile).unwrap().whole();
    for i in 0..16 {
        let slice = map.whole().slice(i * tile..(i + 1) * tile).unwrap();
        device
            .submit(stream, Work::Populate(slice.clone()))
            .unwrap();
        device.submit(stream, copy(&out, &slice)).unwrap();
        let got = read(&device, stream, &out).unwrap();
        assert!(got == content[i * tile..(i + 1) * tile]);
        assert!(resident(&map) <= tile as u64 + 2 * PAGE);
        device.submit(stream, Work::Discard(slice)).unwrap();
    }
    device.synchronize(stream).unwrap();
    assert_eq!(resident(&map), 0);
}
