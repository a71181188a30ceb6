//! What a team promises.

use super::*;

#[test]
fn every_part_runs_once() {
    let team = Team::new(3);
    for parts in [0, 1, 2, 7, 100] {
        for _ in 0..200 {
            let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            team.run(parts, |p| {
                counts[p].fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn runs_work_after_the_workers_slept() {
    let team = Team::new(2);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(2));
        let sum = AtomicUsize::new(0);
        team.run(10, |p| {
            sum.fetch_add(p, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 45);
    }
}

#[test]
fn a_panic_in_a_part_is_an_error_and_the_team_lives_on() {
    let team = Team::new(2);
    let done = AtomicUsize::new(0);
    let result = team.run(8, |p| {
        assert_ne!(p, 3, "part three");
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert!(
        matches!(result, Err(HostError::Panicked { message }) if message.contains("part three"))
    );
    assert_eq!(done.into_inner(), 7);
    team.run(8, |_| {}).unwrap();
}

#[test]
fn nested_and_concurrent_runs_complete() {
    let team = Team::new(2);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..50 {
                    team.run(4, |_| {
                        team.run(4, |_| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        })
                        .unwrap();
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 3 * 50 * 16);
}

#[test]
fn the_error_of_the_lowest_part_is_returned() {
    let team = Team::new(2);
    let result = team.try_run(20, |p| match p % 7 {
        6 => Err(HostError::ReadOnly { arg: p as u16 }),
        _ => Ok(()),
    });
    assert_eq!(result, Err(HostError::ReadOnly { arg: 6 }));
}

/// Panics again when the panic that carries it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload that panics");
    }
}

#[test]
fn a_run_returns_and_frees_nothing_early_whatever_a_panic_carries() {
    let team = Team::new(3);
    for round in 0..100 {
        let still_there = vec![round; 64];
        let result = team.run(12, |p| {
            if p % 3 == 0 {
                std::panic::panic_any(Bomb);
            }
            std::thread::sleep(Duration::from_micros(50));
            assert!(still_there.iter().all(|x| *x == round));
        });
        let said = result.unwrap_err().to_string();
        assert!(said.contains("without a message"), "{said}");
    }
    let count = AtomicUsize::new(0);
    let one = |_| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    team.run(30, one).unwrap();
    assert_eq!(count.into_inner(), 30);
}

#[test]
fn a_single_part_that_panics_is_an_error_like_any_other() {
    let team = Team::new(2);
    let result = team.try_run(1, |_| panic!("alone"));
    assert!(result.unwrap_err().to_string().contains("alone"));
}
