//! Launches and replays that are refused before the device sees them.

use super::recorded::replay;
use super::*;
use trt_kernel::{DType, Dim, Move, Var, View};

#[test]
fn a_launch_that_would_leave_its_memory_is_refused_before_it_runs() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let executable = device.load(&gate()).unwrap();
    let [a, b, out] = [0; 3].map(|_| device.allocate(40).unwrap().whole());
    let submit = |n, args: &[&Slice]| {
        let work = launch(&device, &executable, n, args);
        device.submit(stream, work)
    };
    let refused = submit(11, &[&a, &b, &out]).unwrap_err();
    assert!(
        matches!(
            &refused,
            Error::Launch {
                source: LaunchError::OutOfBounds { .. },
                ..
            }
        ),
        "{refused}"
    );
    assert!(matches!(submit(10, &[&a, &b]), Err(Error::Args { .. })));
    let file = mapped(&device, &[0; 40]).whole();
    assert!(matches!(
        submit(10, &[&a, &b, &file]),
        Err(Error::ReadOnly { .. })
    ));
    let host = Host::unified().allocate(40).unwrap().whole();
    assert!(matches!(
        submit(10, &[&a, &host, &out]),
        Err(Error::WrongDevice { .. })
    ));
    submit(10, &[&a, &b, &out]).unwrap();
    device.synchronize(stream).unwrap();
}

#[test]
fn what_a_kernel_cannot_access_is_refused_with_its_address() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let executable = device.load(&gate()).unwrap();
    let [a, b, out] = [0; 3].map(|_| device.allocate(64).unwrap().whole());
    let odd = b.slice(8..64).unwrap();
    let work = launch(&device, &executable, 8, &[&a, &odd, &out]);
    let error = device.submit(stream, work).unwrap_err();
    let Error::Misaligned {
        what,
        address,
        align,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (what.as_str(), address, align),
        ("argument a1", odd.address(), 16)
    );
    let even = b.slice(16..64).unwrap();
    let work = launch(&device, &executable, 8, &[&a, &even, &out]);
    device.submit(stream, work).unwrap();
    device.synchronize(stream).unwrap();
}

#[test]
fn a_table_is_gathered_wherever_its_elements_are_aligned() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let rows = values(ENTRIES * COLS, 3);
    let table = mapped(&device, &[vec![0; 4], bytes(&rows)].concat());
    let end = 4 + 4 * ENTRIES * COLS;
    let executable = device.load(&pick()).unwrap();
    let ids = place(&device, stream, vec![0; 4]);
    let out = device.allocate(4 * COLS).unwrap().whole();
    let table = table.whole().slice(4..end).unwrap();
    let work = launch(&device, &executable, 1, &[&ids, &table, &out]);
    device.submit(stream, work).unwrap();
    assert_eq!(read(&device, stream, &out).unwrap(), rows[..COLS]);
}

#[test]
fn memory_that_is_not_committed_is_refused_with_the_numbers() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let reserved = device.reserve(64 << 20).unwrap();
    device.commit(&reserved, 1 << 20).unwrap();
    let [a, b] = [0; 2].map(|_| device.allocate(4000).unwrap().whole());
    let executable = device.load(&gate()).unwrap();
    let at = |start: usize| reserved.whole().slice(start..start + 4000).unwrap();
    let submit = |out: &Slice| {
        let work = launch(&device, &executable, 1000, &[&a, &b, out]);
        device.submit(stream, work)
    };
    submit(&at(4096)).unwrap();
    let far = 48 << 20;
    let refused = [
        submit(&at(far)),
        device.submit(
            stream,
            Work::Copy {
                dst: at(far),
                src: a.clone(),
            },
        ),
        device.read(stream, &at(far), &mut [0; 4000]),
        device
            .record(vec![Work::Copy {
                dst: a.clone(),
                src: at(far),
            }])
            .map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Error::Uncommitted { start, end, committed }
                if (start, end) == (far, far + 4000) && committed < far),
            "{error}"
        );
    }
    // What was recorded is looked at again, since memory may have gone meanwhile.
    let out = at(4096);
    let work = launch(&device, &executable, 1000, &[&a, &b, &out]);
    let graph = device.record(vec![work]).unwrap();
    device.submit(stream, replay(&graph, 1000)).unwrap();
    device.synchronize(stream).unwrap();
    device.commit(&reserved, 0).unwrap();
    assert!(matches!(
        device.submit(stream, replay(&graph, 1000)),
        Err(Error::Uncommitted { committed: 0, .. })
    ));
    device.commit(&reserved, 1 << 20).unwrap();
    device.submit(stream, replay(&graph, 1000)).unwrap();
    device.synchronize(stream).unwrap();
}

/// Stores a row of 64 behind `v0` others.
fn append() -> Kernel {
    let row = Dim::from(64);
    Kernel::Move(Move {
        space: vec![row.clone()],
        dtype: DType::F32,
        src: View::contiguous(std::slice::from_ref(&row)),
        dst: View {
            offset: &Dim::var(Var(0)) * &row,
            strides: vec![Dim::from(1)],
        },
    })
}

#[test]
fn a_replay_with_integers_that_lead_out_of_its_memory_is_refused() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let executable = device.load(&append()).unwrap();
    let row = place(&device, stream, bytes(&values(64, 1)));
    let caches = [0; 2].map(|_| device.allocate(10 * 256).unwrap().whole());
    let short = caches[1].slice(0..8 * 256).unwrap();
    let works = [&caches[0], &short].map(|cache| launch(&device, &executable, 0, &[&row, cache]));
    let graph = device.record(works.to_vec()).unwrap();
    for past in [0, 3, 7] {
        device.submit(stream, replay(&graph, past)).unwrap();
    }
    for past in [8, 9, 1 << 30, -1] {
        let error = device.submit(stream, replay(&graph, past)).unwrap_err();
        let Error::Launch {
            source, stream: on, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(on, "s");
        let least = matches!(
            source,
            LaunchError::OutOfBounds {
                arg: 1,
                bytes: 2048,
                ..
            }
        );
        assert!(least, "{source}");
    }
    let written = read(&device, stream, &caches[1]).unwrap();
    for past in 0..10 {
        let expected = match past {
            0 | 3 | 7 => values(64, 1),
            _ => vec![0.; 64],
        };
        assert_eq!(written[past * 64..][..64], expected, "{past}");
    }
}
