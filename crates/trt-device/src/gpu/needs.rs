//! What recorded work reaches in calls that it was not recorded for.
//!
//! Recorded launches read the runtime integers when they run, so with others they reach elsewhere
//! than what was checked when they were recorded. Kept are the accesses, and the working memory,
//! that integers decide which a replay may change, each once with the fewest bytes there are: the
//! layers of a model share most. A replay costs a few sums for each, and nothing is enqueued that
//! would leave its memory.

use super::bounds::inside;
use crate::{Error, Slice};
use std::collections::BTreeMap;
use trt_kernel::launch::within;
use trt_kernel::{Access, Dim, Encoding, Env, Var};

/// What must hold in every replay.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    accesses: Vec<Reached>,
    scratch: Vec<Scratch>,
    /// Sizes that texts count with 32 bits, and of which kernel.
    limits: Vec<(&'static str, Dim)>,
    /// The slice that ends last in each reserved memory, by the memory's address.
    reserved: BTreeMap<u64, Slice>,
}

/// An access of launches, and the shortest memory that they have for it.
#[derive(Debug)]
struct Reached {
    kernel: &'static str,
    encoding: Encoding,
    access: Access<'static>,
    bytes: usize,
}

/// Working memory of launches, and the shortest that they were given.
#[derive(Debug)]
struct Scratch {
    kernel: &'static str,
    needed: Dim,
    found: usize,
}

impl Needs {
    /// Adds an access of an argument of `bytes` bytes.
    pub fn access(
        &mut self,
        kernel: &'static str,
        access: &Access<'static>,
        encoding: Encoding,
        bytes: usize,
    ) {
        if access.vars().next().is_none() {
            return;
        }
        // It reaches the same in every call, be it of another argument.
        let like = |known: &Access<'_>| known.view == access.view && known.space == access.space;
        let same = |r: &&mut Reached| r.encoding == encoding && like(&r.access);
        let new = Reached {
            kernel,
            encoding,
            access: access.clone(),
            bytes,
        };
        match self.accesses.iter_mut().find(same) {
            None => self.accesses.push(new),
            Some(known) if bytes < known.bytes => *known = new,
            Some(_) => {}
        }
    }

    /// Adds working memory.
    pub fn scratch(&mut self, kernel: &'static str, needed: &Dim, found: usize) {
        let new = Scratch {
            kernel,
            needed: needed.clone(),
            found,
        };
        match self.scratch.iter_mut().find(|s| s.needed == *needed) {
            None => self.scratch.push(new),
            Some(known) if found < known.found => *known = new,
            Some(_) => {}
        }
    }

    /// Adds sizes that a text counts with 32 bits.
    pub fn limits(&mut self, kernel: &'static str, limits: &[Dim]) {
        for dim in limits {
            if !self.limits.iter().any(|(_, known)| known == dim) {
                self.limits.push((kernel, dim.clone()));
            }
        }
    }

    /// Adds a slice of reserved memory that work uses.
    pub fn reserved(&mut self, slice: &Slice) {
        let memory = slice.memory().whole().address();
        let last = self.reserved.entry(memory).or_insert(slice.clone());
        if end(last) < end(slice) {
            *last = slice.clone();
        }
    }

    /// Forgets what only integers decide that no replay may change.
    pub fn settle(&mut self, fixed: &BTreeMap<Var, i64>) {
        let free = |var: Var| !fixed.contains_key(&var);
        self.accesses.retain(|r| r.access.vars().any(free));
        self.scratch.retain(|s| s.needed.vars().any(free));
        self.limits.retain(|(_, dim)| dim.vars().any(free));
    }

    /// Whether a replay with these integers stays in its memory; `stream` is named in errors.
    pub fn check(&self, env: &Env, stream: &str) -> Result<(), Error> {
        for (kernel, dim) in &self.limits {
            let one = std::slice::from_ref(dim);
            within(one, env).map_err(|source| Error::TooLarge { kernel, source })?;
        }
        for r in &self.accesses {
            let (arg, reach) = (r.access.arg.0 as usize, r.access.reach(env));
            inside(arg, r.encoding, reach, r.bytes).map_err(|source| Error::Launch {
                kernel: r.kernel,
                stream: stream.into(),
                source,
            })?;
        }
        self.scratch.iter().try_for_each(|s| {
            let (needed, found) = (s.needed.size(env), s.found);
            match needed <= found {
                true => Ok(()),
                false => Err(Error::Scratch {
                    kernel: s.kernel,
                    needed,
                    found,
                }),
            }
        })
    }

    /// Whether all reserved memory is still committed: `holds` tells of the bytes of a slice and
    /// those before it.
    pub fn committed(&self, holds: impl Fn(&Slice) -> Result<(), Error>) -> Result<(), Error> {
        self.reserved.values().try_for_each(holds)
    }
}

fn end(slice: &Slice) -> usize {
    slice.offset() + slice.len()
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Bounds;
    use super::*;
    use crate::LaunchError;
    use trt_kernel::{DType, Kernel, Move, View};

    const PAST: Var = Var(0);
    const SEQ: Var = Var(1);

    /// Appends `seq` rows of four elements behind `past` others.
    fn append() -> Bounds {
        let (past, seq, row) = (Dim::var(PAST), Dim::var(SEQ), Dim::from(4));
        let space = vec![seq, row.clone()];
        Bounds::new(&Kernel::Move(Move {
            dtype: DType::F32,
            src: View::contiguous(&space),
            dst: View {
                offset: &past * &row,
                strides: vec![row, Dim::from(1)],
            },
            space,
        }))
    }

    /// What is needed of caches with so many rows.
    fn needs(rows: &[usize]) -> Needs {
        let mut needs = Needs::default();
        let bounds = append();
        for rows in rows {
            let bytes = [16, 16 * rows];
            for (access, encoding) in bounds.each() {
                let bytes = bytes[access.arg.0 as usize];
                needs.access("move", access, encoding, bytes);
            }
        }
        needs.settle(&BTreeMap::from([(SEQ, 1)]));
        needs
    }

    #[test]
    fn a_replay_stays_inside_of_the_smallest_memory_that_was_recorded() {
        let needs = needs(&[10, 7, 9]);
        for past in [0, 3, 6] {
            assert!(needs.check(&Env::new(&[past, 1]), "s").is_ok(), "{past}");
        }
        for past in [7, 9, 1 << 40, -1] {
            let error = needs.check(&Env::new(&[past, 1]), "s").unwrap_err();
            let Error::Launch { source, stream, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(stream, "s");
            assert!(
                matches!(
                    source,
                    LaunchError::OutOfBounds {
                        arg: 1,
                        bytes: 112,
                        ..
                    }
                ),
                "{source}"
            );
        }
    }

    #[test]
    fn layers_share_what_they_reach_and_fixed_integers_decide_nothing_more() {
        // What is read depends on `seq` alone.
        assert_eq!(needs(&[8; 100]).accesses.len(), 1);
        let mut needs = needs(&[8]);
        needs.settle(&BTreeMap::from([(SEQ, 1), (PAST, 5)]));
        assert!(needs.accesses.is_empty());
    }

    #[test]
    fn a_replay_may_count_no_further_than_its_kernels() {
        let mut needs = Needs::default();
        let size = &Dim::var(PAST) * &Dim::from(1 << 20);
        needs.limits("row", &[size.clone(), Dim::var(SEQ)]);
        needs.limits("row", &[size]);
        needs.settle(&BTreeMap::from([(SEQ, 1)]));
        assert_eq!(needs.limits.len(), 1);
        assert!(needs.check(&Env::new(&[2000]), "s").is_ok());
        let error = needs.check(&Env::new(&[2048]), "s").unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { kernel: "row", .. }),
            "{error}"
        );
    }

    #[test]
    fn working_memory_is_that_of_the_call_that_is_replayed() {
        let mut needs = Needs::default();
        let needed = &Dim::var(PAST) * &Dim::from(8);
        for found in [100, 64, 80] {
            needs.scratch("attention", &needed, found);
        }
        needs.scratch("row", &Dim::from(10), 10);
        needs.settle(&BTreeMap::new());
        assert!(needs.check(&Env::new(&[8]), "s").is_ok());
        assert!(matches!(
            needs.check(&Env::new(&[9]), "s"),
            Err(Error::Scratch {
                kernel: "attention",
                needed: 72,
                found: 64
            })
        ));
    }
}
