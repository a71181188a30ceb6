//! What debug builds leave in memory whose content must not matter, and that nothing recorded in
//! such memory comes back.

use crate::allocation::on;
use crate::common::small::Stingy;
use crate::families::tokens;
use candle_trt::alloc::{Arena, Error, Hold, Pool, Strategy};
use candle_trt::device::{Device, Host, Slice, Stream, Work};
use candle_trt::{Allocation, Engine, Session, Shared};
use std::sync::{Arc, Mutex};

const POISON: u8 = 0xa5;
const BYTES: u64 = 4 << 20;

/// Lends the same memory for each call, and keeps it where a test can look at it.
#[derive(Debug)]
struct Kept {
    hold: Hold,
    arena: Mutex<Option<Arena>>,
    memory: Mutex<Option<Slice>>,
}

impl Kept {
    fn new(hold: Hold) -> Arc<Kept> {
        Arc::new(Kept {
            hold,
            arena: Mutex::default(),
            memory: Mutex::default(),
        })
    }

    fn memory(&self) -> Slice {
        let memory = self.memory.lock().expect("no panic").clone();
        memory.expect("a call was made")
    }
}

impl Strategy for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn hold(&self) -> Hold {
        self.hold
    }

    fn begin(&self, pool: &Pool, _bytes: u64) -> Result<Arena, Error> {
        let kept = self.arena.lock().expect("no panic").take();
        let arena = kept.map_or_else(|| Arena::acquire(pool, BYTES), Ok)?;
        *self.memory.lock().expect("no panic") = Some(arena.slice(0, BYTES)?);
        Ok(arena)
    }

    fn end(&self, arena: Arena) {
        *self.arena.lock().expect("no panic") = Some(arena);
    }
}

/// Memory of a device, seen and changed beside its engines.
struct Beside {
    device: Arc<dyn Device>,
    stream: Stream,
}

impl Beside {
    fn new(device: Arc<dyn Device>) -> Beside {
        let stream = device.stream("beside").expect("a stream");
        Beside { device, stream }
    }

    /// Bytes that are not poison.
    fn clean(&self, memory: &Slice) -> usize {
        let mut bytes = vec![0; memory.len()];
        let read = self.device.read(self.stream, memory, &mut bytes);
        read.expect("it can be read");
        clean(&bytes)
    }

    fn fill(&self, memory: &Slice, with: u8) {
        let bytes = vec![with; memory.len()];
        let dst = memory.clone();
        let write = self.device.submit(self.stream, Work::Write { dst, bytes });
        write.expect("it can be written");
        self.device.synchronize(self.stream).expect("it is written");
    }
}

fn clean(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b != POISON).count()
}

#[cfg(debug_assertions)]
#[test]
fn the_memory_of_a_call_is_poisoned_before_its_first_launch_and_after_its_last() {
    let (own, device) = (Kept::new(Hold::Call), Stingy::new());
    let engine = on(device.clone(), 64, own.clone());
    let beside = Beside::new(device.clone());
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(5)).expect("a prompt");
    let memory = own.memory();
    assert_eq!(beside.clean(&memory), 0, "after the call");
    beside.fill(&memory, 0);
    device.peek_at(memory.clone());
    session.prefill(&tokens(7)).expect("a prompt");
    let seen = device.peeked().expect("something was launched");
    let inputs = 7 * size_of::<u32>();
    let before = clean(&seen);
    assert!((1..=inputs).contains(&before), "{before} bytes of inputs");
    assert_eq!(beside.clean(&memory), 0, "after the next call");
}

#[cfg(debug_assertions)]
#[test]
fn memory_that_stays_is_poisoned_when_its_engine_changes_to_another_allocation() {
    let (own, device) = (Kept::new(Hold::Member), Stingy::new());
    let engine = on(device.clone(), 64, own.clone());
    let beside = Beside::new(device.clone());
    let mut session = engine.session().expect("a session");
    let mut call = || {
        session.decode(1).expect("a token");
        beside.fill(&own.memory(), 0);
        session.decode(1).expect("a token");
        let clean = beside.clean(&own.memory());
        assert!(clean > BYTES as usize / 2, "it stays between calls");
    };
    call();
    let change = engine.set_allocation(Allocation::Dynamic);
    change.expect("there is memory");
    assert_eq!(beside.clean(&own.memory()), 0);
    let scope = engine.resource_allocation(own.clone());
    call();
    drop(scope.expect("a scope"));
    assert_eq!(beside.clean(&own.memory()), 0, "at the end of a scope");
}

/// Some tokens, as bits, and how many of the calls were replayed.
fn decode(engine: &Engine, session: &mut Session, count: usize) -> (Vec<Vec<u32>>, u64) {
    let before = engine.replayed_calls();
    session.truncate(4);
    let decode = |token: &u32| {
        let logits = session.decode(*token).expect("a token");
        logits.iter().map(|v| v.to_bits()).collect()
    };
    let bits = tokens(count).iter().map(decode).collect();
    (bits, engine.replayed_calls() - before)
}

#[test]
fn what_was_recorded_in_an_arena_is_not_replayed_after_it_was_given_up() {
    let shared = Shared::new();
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    // It keeps the shared arena where it is while the other is away.
    let _other = on(device.clone(), 64, &shared);
    for stays in [Allocation::Static, Allocation::from(&shared)] {
        let engine = on(device.clone(), 64, stays.clone());
        let mut session = engine.session().expect("a session");
        session.prefill(&tokens(4)).expect("a prompt");
        // The first call is seen, the second recorded.
        let (wanted, replayed) = decode(&engine, &mut session, 5);
        assert_eq!(replayed, 4, "{stays}");
        engine.set_allocation(Allocation::Dynamic).expect("memory");
        let dynamic = decode(&engine, &mut session, 5);
        assert_eq!(dynamic, (wanted.clone(), 0), "{stays}");
        engine.set_allocation(stays.clone()).expect("memory");
        let again = decode(&engine, &mut session, 5);
        assert_eq!(again, (wanted.clone(), 4), "{stays}");
        let scope = engine.resource_allocation(Allocation::Dynamic);
        let scope = scope.expect("a scope");
        let within = decode(&engine, &mut session, 5);
        assert_eq!(within, (wanted.clone(), 0), "{stays}");
        drop(scope);
        let after = decode(&engine, &mut session, 5);
        assert_eq!(after, (wanted, 4), "{stays}");
    }
}
