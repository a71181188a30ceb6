//! Recorded launches and their replays.

use super::*;

pub fn replay(graph: &Graph, n: i64) -> Work {
    Work::Replay {
        graph: graph.clone(),
        env: Env::new(&[n]),
    }
}

#[test]
fn recorded_launches_follow_new_integers_and_report_bad_ids() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let rows = values(ENTRIES * COLS, 3);
    let table = mapped(&device, &bytes(&rows)).whole();
    let executable = device.load(&pick()).unwrap();
    let ids = place(
        &device,
        stream,
        [3u32, 1].iter().flat_map(|i| i.to_le_bytes()).collect(),
    );
    let [first, second] = [0; 2].map(|_| device.allocate(8 * COLS).unwrap().whole());
    let copy = Work::Copy {
        dst: second.clone(),
        src: first.clone(),
    };
    let work = launch(&device, &executable, 2, &[&ids, &table, &first]);
    let graph = device.record(vec![work, copy]).unwrap();
    let expected = [3, 1].map(|id| rows[id * COLS..][..COLS].to_vec()).concat();
    for _ in 0..3 {
        device.submit(stream, replay(&graph, 2)).unwrap();
        assert_eq!(read(&device, stream, &second).unwrap(), expected);
    }
    // One row less, if that does not change what is launched.
    write(&device, stream, &ids, vec![0; 8]);
    match device.submit(stream, replay(&graph, 1)) {
        Ok(()) => {
            let found = read(&device, stream, &second).unwrap();
            assert_eq!(
                found,
                [rows[..COLS].to_vec(), expected[COLS..].to_vec()].concat()
            );
        }
        Err(error) => assert!(
            matches!(
                error,
                Error::Stale {
                    recorded: 2,
                    asked: 1,
                    ..
                }
            ),
            "{error}"
        ),
    }
    write(&device, stream, &ids, vec![0xff; 8]);
    device.submit(stream, replay(&graph, 2)).unwrap();
    let told = device.synchronize(stream).unwrap_err();
    assert!(
        matches!(
            &told,
            Error::Launch {
                source: LaunchError::Id { .. },
                ..
            }
        ),
        "{told}"
    );
    device.synchronize(stream).unwrap();
}
