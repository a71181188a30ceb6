//! Budgets, allocations and limits that change while calls run on any device: every output is right,
//! bit for bit, and every session survives.

use super::small::{bits, compile};
use super::tiny::tokens;
use candle_trt::device::Device;
use candle_trt::{Allocation, Engine, Error, Request, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Changes of the budget without which nothing was tested.
const CHANGES: u64 = 10;

/// The same numbers in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// One random change. Those that may be refused say so by their type, and nothing else fails.
fn change(engine: &Engine, draw: &mut Draw, shared: &Shared) {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    let result = match draw.below(7) {
        0 => engine.set_device_budget(Request::Minimum).map(drop),
        1 => engine.set_device_budget(Request::Automatic).map(drop),
        2 | 3 => {
            let bytes = floor + draw.below(total - floor + 1);
            engine.set_device_budget(Request::Bytes(bytes)).map(drop)
        }
        4 => engine
            .set_device_limit((64 << 20) + draw.below(1 << 20))
            .map(drop),
        5 => engine.regrow().map(drop),
        _ => engine.set_allocation(match draw.below(3) {
            0 => Allocation::Static,
            1 => Allocation::Dynamic,
            _ => Allocation::from(shared),
        }),
    };
    match result {
        Ok(()) => {}
        Err(e) if e.out_of_memory().is_some() => {}
        Err(Error::Memory(_) | Error::LimitTooSmall { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// For so long, three threads call while budgets, limits and allocations change; and memory is taken
/// and given back if the engine is `pressed`.
pub fn stress(device: Arc<dyn Device>, pressed: bool, time: Duration) {
    let engine = compile(device.clone(), |c| c).expect("it compiles");
    let wanted = bits(&engine);
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut session = engine.session().expect("a session");
                while !done.load(Ordering::SeqCst) {
                    session.reset();
                    let all = tokens(14);
                    let parts = std::iter::once(&all[..9]).chain(all[9..].chunks(1));
                    for (part, wanted) in parts.zip(&wanted) {
                        let logits = session.prefill(part).expect("a call waits its turn");
                        let got: Vec<u32> = logits.iter().map(|v| v.to_bits()).collect();
                        assert!(got == *wanted, "other bits");
                        calls.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let (mut draw, shared) = (Draw(7), Shared::new());
        let (start, mut taken) = (Instant::now(), 0);
        // Where calls take long, as under a tool that watches every access, until some were made.
        let few = || engine.memory().budget_changes <= CHANGES && start.elapsed() < time * 30;
        while start.elapsed() < time || few() {
            for _ in 0..10 {
                change(&engine, &mut draw, &shared);
            }
            if pressed {
                // Never more than weights can make room for: the largest arena at least is left.
                let needed = 2 << 20;
                let free = device.free_memory().unwrap_or(0).saturating_sub(needed);
                // Refused if a call has taken some of it meanwhile.
                let other = device.allocate(free as usize);
                change(&engine, &mut draw, &shared);
                taken += usize::from(other.is_ok());
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(taken > 0 || !pressed, "memory was taken");
    });
    assert!(calls.load(Ordering::SeqCst) >= 18, "each thread ran");
    assert!(engine.memory().budget_changes > CHANGES);
    assert!(bits(&engine) == wanted);
}
