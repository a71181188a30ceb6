//! What a scope of an allocation restores, on every way out of it.

use crate::allocation::{Counting, bits, compile, largest_arena, on};
use crate::families::tokens;
use candle_trt::device::{Device, Host};
use candle_trt::{Allocation, Engine, ResourceAllocation, Shared};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A static arena is held by its engine, and by whatever was recorded in it.
#[test]
fn a_dynamic_scope_returns_the_static_arena_and_what_was_recorded_in_it() {
    let engine = compile(Allocation::Static);
    let wanted = bits(&engine);
    let mut session = engine.session().expect("a session");
    for token in tokens(6) {
        session.decode(token).expect("a token");
    }
    assert!(engine.replayed_calls() > 0);
    let before = engine.memory();
    assert_eq!(before.activations, largest_arena(&engine));
    {
        let _scope = engine
            .resource_allocation(Allocation::Dynamic)
            .expect("a scope");
        assert_eq!(engine.memory().activations, 0);
        let replayed = engine.replayed_calls();
        assert!(bits(&engine) == wanted);
        assert_eq!(engine.replayed_calls(), replayed, "nothing is recorded");
        let after = engine.memory();
        assert_eq!(after.in_use, before.in_use - before.activations);
    }
    assert_eq!(engine.memory().in_use, before.in_use);
    let replayed = engine.replayed_calls();
    assert!(bits(&engine) == wanted);
    assert!(engine.replayed_calls() > replayed, "recorded again");
}

#[test]
fn a_scope_restores_the_previous_allocation_on_every_exit() {
    let shared = Shared::new();
    let engine = compile(&shared);
    let scope = || {
        let scope = engine.resource_allocation(Allocation::Dynamic);
        scope.expect("a scope")
    };
    let early = || -> Option<()> {
        let _scope = scope();
        None
    };
    assert!(early().is_none());
    assert_eq!(engine.allocation(), Allocation::from(&shared));
    let panics = AssertUnwindSafe(|| {
        let _scope = scope();
        panic!("in a scope");
    });
    assert!(catch_unwind(panics).is_err());
    assert_eq!(engine.allocation(), Allocation::from(&shared));
    {
        let _outer = scope();
        {
            let _inner = engine
                .resource_allocation(Allocation::Static)
                .expect("a scope");
            assert_eq!(engine.allocation(), Allocation::Static);
            assert_eq!(engine.memory().activations, largest_arena(&engine));
        }
        assert_eq!(engine.allocation(), Allocation::Dynamic);
        assert_eq!(engine.memory().activations, 0);
    }
    assert_eq!(engine.allocation(), Allocation::from(&shared));
    assert_eq!(shared.members(), 1);
}

#[test]
fn a_scope_over_several_engines_restores_each_its_own() {
    let shared = Shared::new();
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let a = on(device.clone(), 64, Allocation::Static);
    let b = on(device, 64, &shared);
    {
        let _scope = ResourceAllocation::of([&a, &b], Allocation::Dynamic).expect("a scope");
        let memory = (a.memory().activations, b.memory().activations);
        assert_eq!((memory, shared.bytes()), ((0, 0), 0));
    }
    assert_eq!(a.allocation(), Allocation::Static);
    assert_eq!(b.allocation(), Allocation::from(&shared));
    assert_eq!(shared.bytes(), largest_arena(&b));
}

#[test]
fn scopes_of_two_engines_restore_each_its_own() {
    let shared = Shared::new();
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let engines = [
        on(device.clone(), 64, Allocation::Static),
        on(device, 64, &shared),
    ];
    let own = [Allocation::Static, Allocation::from(&shared)];
    for first in [0, 1] {
        let second = 1 - first;
        let mut scopes = engines.each_ref().map(|engine| {
            let scope = engine.resource_allocation(Allocation::Dynamic);
            Some(scope.expect("a scope"))
        });
        drop(scopes[first].take());
        assert_eq!(engines[first].allocation(), own[first]);
        assert_eq!(
            engines[first].memory().activations,
            largest_arena(&engines[first])
        );
        // The other is inside of its scope still.
        assert_eq!(engines[second].allocation(), Allocation::Dynamic);
        assert_eq!(engines[second].memory().activations, 0);
        drop(scopes);
        let after = engines.each_ref().map(Engine::allocation);
        assert_eq!(after, own, "{first} left first");
        assert_eq!(shared.bytes(), largest_arena(&engines[1]));
    }
}

/// Each restores what it found; the second found what the first had set.
#[test]
fn of_two_scopes_of_one_engine_the_last_to_end_has_the_last_word() {
    let shared = Shared::new();
    let engine = compile(Allocation::Static);
    let wanted = bits(&engine);
    let first = engine.resource_allocation(Allocation::Dynamic);
    let first = first.expect("a scope");
    let second = engine.resource_allocation(&shared).expect("a scope");
    drop(first);
    assert_eq!(engine.allocation(), Allocation::Static);
    assert_eq!(shared.members(), 0);
    drop(second);
    assert_eq!(engine.allocation(), Allocation::Dynamic);
    assert_eq!(engine.memory().activations, 0);
    assert!(bits(&engine) == wanted);
}

#[test]
fn a_scope_that_one_engine_refuses_changes_none() {
    let shared = Shared::new();
    let there = compile(&shared);
    let elsewhere = on(Arc::new(Host::unified()), 64, Allocation::Dynamic);
    let near = on(there.device().clone(), 64, Allocation::Dynamic);
    let error = ResourceAllocation::of([&near, &elsewhere], &shared).expect_err("another device");
    assert!(error.to_string().contains("host (unified)"), "{error}");
    assert_eq!(near.allocation(), Allocation::Dynamic);
    assert_eq!(elsewhere.allocation(), Allocation::Dynamic);
    assert_eq!(shared.members(), 1);
    assert_eq!(bits(&elsewhere).len(), bits(&near).len());
}

#[test]
fn entering_what_is_in_force_does_no_work() {
    let own = Arc::new(Counting::default());
    let engine = compile(own.clone());
    {
        let _scope = engine.resource_allocation(own.clone()).expect("a scope");
    }
    assert_eq!(own.counts(), [1, 0, 0, 0]);
    drop(engine);
    assert_eq!(own.counts(), [1, 1, 0, 0]);
}

#[test]
fn a_static_arena_that_is_refused_after_a_scope_is_acquired_by_a_later_call() {
    let engine = compile(Allocation::Static);
    let (wanted, memory) = (bits(&engine), engine.memory());
    let per_session = memory.states_per_session;
    let budget = engine.device_budget().expect("a budget").applied;
    let mut greedy = Vec::new();
    {
        let _scope = engine
            .resource_allocation(Allocation::Dynamic)
            .expect("a scope");
        // Room for the sessions of the scope, or for the arena and one session.
        let arena = largest_arena(&engine);
        let sessions = arena / per_session + 2;
        let beside = memory.constants + budget;
        engine
            .set_device_limit(beside + arena + per_session * sessions)
            .expect("room");
        while let Ok(session) = engine.session() {
            greedy.push(session);
        }
    }
    assert_eq!(engine.allocation(), Allocation::Static);
    let error = greedy[0].decode(1).expect_err("no memory is left");
    assert!(error.to_string().contains("activations"), "{error}");
    drop(greedy);
    assert!(bits(&engine) == wanted);
    assert_eq!(engine.memory().activations, largest_arena(&engine));
}
