//! Finds states in tours: ports that all classes treat alike.
//!
//! The calls that are looked at go on from calls that are like any of their class: from no first call, unless the class
//! has no others. What the ports of a call are follows from its results and from what later calls read of it, so
//! both are found together. Then ports are parted by what happened to their tensors in the call before, until
//! no two in one part differ.

use super::calls::{Calls, Port};
use super::profile::Class;
use super::states::{Rule, States};
use super::tour::Tour;
use crate::Error;
use crate::mirror::Tensor;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What each reader saw, by class.
type Table = HashMap<(Reader, usize), Seen>;

/// What happened to the tensor at a port in the call before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Made(usize),
    /// It is older; that call read it there, if it did.
    Older(Option<Port>),
}

/// A class and one of its ports.
type Reader = (usize, Port);

/// What the tours show.
pub(super) struct Finder<'a> {
    tours: &'a [Tour],
    classes: &'a [Class],
    /// Places of each class whose tensors are read later.
    kept: Vec<BTreeSet<usize>>,
    /// Places of each class whose tensors are read so many calls later, and not in between.
    aged: HashMap<(usize, usize), usize>,
    /// Calls that are looked at, by tour: each goes on from one that is like any of its class.
    looked: Vec<(usize, usize)>,
}

impl<'a> Finder<'a> {
    pub fn new(classes: &'a [Class], tours: &'a [Tour], warm: usize) -> Result<Finder<'a>, Error> {
        let mut finder = Finder {
            tours,
            classes,
            kept: vec![BTreeSet::new(); classes.len()],
            aged: HashMap::new(),
            looked: Vec::new(),
        };
        for (t, tour) in tours.iter().enumerate() {
            let calls = 2..=tour.stops.len();
            let after = |n: &usize| match t {
                0 => *n > warm,
                _ => finder.settled(t, *n - 1),
            };
            let looked: Vec<_> = calls.filter(after).map(|n| (t, n)).collect();
            finder.looked.extend(looked);
        }
        finder.alike()?;
        while finder.keep_more() {}
        Ok(finder)
    }

    /// Whether a call is like others of its class: it is the only first call that the class has, or no first call.
    fn settled(&self, tour: usize, call: usize) -> bool {
        let stop = self.tours[tour].stop(call);
        let only_first = |class: usize| {
            let of = &self.classes[class];
            of.positions()
                .is_some_and(|p| of.ints[p.past].range.max == 0)
        };
        call >= 2 || stop.is_some_and(|s| only_first(s.class))
    }

    fn class(&self, tour: usize, call: usize) -> usize {
        self.tours[tour].stop(call).map_or(0, |s| s.class)
    }

    /// Calls of one class make as many tensors, or a place says nothing.
    fn alike(&self) -> Result<(), Error> {
        let mut known: HashMap<usize, (usize, usize)> = HashMap::new();
        for (t, n) in &self.looked {
            for call in [*n - 1, *n] {
                let class = self.class(*t, call);
                let (t0, n0) = *known.entry(class).or_insert((*t, call));
                let (a, b) = (
                    self.tours[t0].calls.list(n0).len(),
                    self.tours[*t].calls.list(call).len(),
                );
                if a != b {
                    return Err(self.differ((t0, n0), (*t, call), a, b));
                }
            }
        }
        Ok(())
    }

    fn differ(&self, a: (usize, usize), b: (usize, usize), left: usize, right: usize) -> Error {
        let describe = |(t, n): (usize, usize)| {
            let stop = self.tours[t].stop(n);
            stop.map_or_else(String::new, |s| self.classes[s.class].describe(&s.values))
        };
        Error::ControlFlow {
            a: describe(a),
            b: describe(b),
            node: 0,
            left: format!("{left} tensors that depend on inputs"),
            right: format!("{right} tensors that depend on inputs"),
        }
    }

    /// What a call reads of earlier ones for its results and for what is kept of it.
    fn reads(&self, tour: usize, call: usize) -> Vec<(Port, Tensor)> {
        let of = &self.tours[tour];
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        let outputs = of.stop(call).map_or(&[][..], |s| &s.outputs);
        for (i, output) in outputs.iter().enumerate() {
            let root = (Port::Output(i), output);
            of.calls.reads(call, root, &mut seen, &mut found);
        }
        for at in &self.kept[self.class(tour, call)] {
            if let Some(tensor) = of.calls.list(call).get(*at) {
                let root = (Port::Operand { at: *at, index: 0 }, tensor);
                of.calls.reads(call, root, &mut seen, &mut found);
            }
        }
        let class = self.class(tour, call);
        for ((_, at), most) in self.aged.iter().filter(|a| a.0.0 == class) {
            for age in 1..*most {
                let made = call
                    .checked_sub(age)
                    .filter(|m| self.class(tour, *m) == class);
                let tensor = made.and_then(|m| of.calls.list(m).get(*at));
                found.extend(tensor.map(|t| (Port::Passed { at: *at, age }, t.clone())));
            }
        }
        found
    }

    /// How many calls ago a tensor was made, if all calls since are of one class, each reads the next one at that
    /// port, and the call before did not read this one.
    fn age(
        &self,
        (tour, call): (usize, usize),
        before: &[(Port, Tensor)],
        port: Port,
        tensor: &Tensor,
    ) -> Option<usize> {
        let calls = &self.tours[tour].calls;
        let made = calls.place(tensor).filter(|m| m.call + 1 < call)?;
        let class = self.class(tour, call);
        let one = (made.call..call).all(|c| self.class(tour, c) == class);
        let known = before.iter().any(|(_, t)| t.id() == tensor.id());
        let there = before.iter().find(|(p, _)| *p == port);
        let there = there.and_then(|(_, t)| calls.place(t))?;
        let older = there.at == made.at && there.call + 1 == made.call;
        (one && older && !known).then(|| call - made.call)
    }

    /// Marks what is read of calls as kept; whether that is more than was known.
    fn keep_more(&mut self) -> bool {
        let mut more = false;
        for (t, n) in self.looked.clone() {
            let before = self.reads(t, n - 1);
            for (port, tensor) in self.reads(t, n) {
                if let Some(age) = self.age((t, n), &before, port, &tensor)
                    && let Some(made) = self.tours[t].calls.place(&tensor)
                {
                    let known = self.aged.entry((self.class(t, n), made.at)).or_insert(0);
                    more |= age > *known;
                    *known = age.max(*known);
                }
                let place = self.tours[t].calls.place(&tensor);
                if let Some(place) = place.filter(|p| self.settled(t, p.call)) {
                    let class = self.class(t, place.call);
                    more |= self.kept[class].insert(place.at);
                }
            }
        }
        more
    }

    /// What happened to each port of each class in a call of each class before.
    fn table(&self) -> Result<(Vec<Reader>, Table), Error> {
        let mut readers: Vec<Reader> = Vec::new();
        let mut met: HashSet<Reader> = HashSet::new();
        let mut table: HashMap<(Reader, usize), Seen> = HashMap::new();
        for (t, n) in &self.looked {
            let calls: &Calls = &self.tours[*t].calls;
            let (before, class) = (self.class(*t, n - 1), self.class(*t, *n));
            let then: HashMap<u64, Port> = self
                .reads(*t, n - 1)
                .into_iter()
                .rev()
                .map(|(port, tensor)| (tensor.id(), port))
                .collect();
            for (port, tensor) in self.reads(*t, *n) {
                let seen = match calls.place(&tensor) {
                    Some(place) if place.call == n - 1 => Seen::Made(place.at),
                    _ => Seen::Older(then.get(&tensor.id()).copied()),
                };
                let reader = (class, port);
                if met.insert(reader) {
                    readers.push(reader);
                }
                let known = *table.entry((reader, before)).or_insert(seen);
                if known != seen {
                    return Err(self.unsteady((*t, *n), &tensor));
                }
            }
        }
        for (t, n) in &self.looked {
            let here = self.class(*t, *n);
            let found: HashSet<Port> = self.reads(*t, *n).into_iter().map(|r| r.0).collect();
            for reader in readers.iter().filter(|r| r.0 == here) {
                if !found.contains(&reader.1) {
                    // A first call may leave a constant alone that later calls change.
                    let before = self.class(*t, n - 1);
                    match (n - 1, table.contains_key(&(*reader, before))) {
                        (1, false) => {
                            table.insert((*reader, before), Seen::Older(None));
                        }
                        _ => {
                            return Err(self.differ(
                                (*t, *n),
                                (*t, n - 1),
                                found.len(),
                                readers.len(),
                            ));
                        }
                    }
                }
            }
        }
        Ok((readers, table))
    }

    fn unsteady(&self, (tour, call): (usize, usize), tensor: &Tensor) -> Error {
        let stop = self.tours[tour].stop(call);
        let at = stop.map_or_else(String::new, |s| self.classes[s.class].describe(&s.values));
        Error::State {
            state: 0,
            what: format!(
                "what {at} takes of shape {:?} from earlier calls is not always left by the same ones",
                tensor.dims()
            ),
        }
    }

    pub fn states(&self) -> Result<States, Error> {
        let (readers, table) = self.table()?;
        let index: HashMap<Reader, usize> =
            readers.iter().enumerate().map(|(i, r)| (*r, i)).collect();
        let classes = self.classes.len();
        let mut block = vec![0usize; readers.len()];
        loop {
            let mut ids: HashMap<Vec<(usize, usize)>, usize> = HashMap::new();
            let mut next = Vec::with_capacity(readers.len());
            for (i, reader) in readers.iter().enumerate() {
                let treated = |before: usize| match table.get(&(*reader, before)) {
                    None => (0, 0),
                    Some(Seen::Made(at)) => (1, *at),
                    Some(Seen::Older(port)) => {
                        let of = port.and_then(|p| index.get(&(before, p)));
                        (2, block[of.copied().unwrap_or(i)])
                    }
                };
                let mut key: Vec<(usize, usize)> = (0..classes).map(treated).collect();
                key.push((3, block[i]));
                let id = ids.len();
                next.push(*ids.entry(key).or_insert(id));
            }
            let (old, new) = (count(&block), count(&next));
            block = next;
            if old == new {
                break;
            }
        }
        let mut rules = vec![vec![None; count(&block)]; classes];
        for (i, reader) in readers.iter().enumerate() {
            for (before, rules) in rules.iter_mut().enumerate() {
                let rule = match table.get(&(*reader, before)) {
                    None => Rule::Kept(block[i]),
                    Some(Seen::Made(at)) => Rule::Made(*at),
                    Some(Seen::Older(port)) => {
                        let of = port.and_then(|p| index.get(&(before, p)));
                        Rule::Kept(block[of.copied().unwrap_or(i)])
                    }
                };
                rules[block[i]] = Some(rule);
            }
        }
        let rules: Vec<Vec<Rule>> = rules
            .into_iter()
            .map(|of| {
                of.into_iter()
                    .enumerate()
                    .map(|(i, r)| r.unwrap_or(Rule::Kept(i)))
                    .collect()
            })
            .collect();
        let mut reads = vec![HashMap::new(); classes];
        for (i, (class, port)) in readers.iter().enumerate() {
            reads[*class].insert(*port, block[i]);
        }
        Ok(self.numbered(States { reads, rules }))
    }

    /// The same states in the order in which a graph meets them.
    fn numbered(&self, states: States) -> States {
        let count = states.rules.first().map_or(0, Vec::len);
        let mut order: Vec<usize> = Vec::new();
        for class in 0..self.classes.len() {
            let Some((t, n)) = self
                .looked
                .iter()
                .rev()
                .find(|(t, n)| self.class(*t, *n) == class)
            else {
                continue;
            };
            let tour = &self.tours[*t];
            let (mut seen, mut found) = (HashSet::new(), Vec::new());
            for (i, output) in tour.stops[n - 1].outputs.iter().enumerate() {
                let root = (Port::Output(i), output);
                tour.calls.reads(*n, root, &mut seen, &mut found);
            }
            let (mut met, mut done) = (0, 0);
            loop {
                for (port, _) in &found[met..] {
                    if let Some(state) = states.at(class, *port)
                        && !order.contains(&state)
                    {
                        order.push(state);
                    }
                }
                met = found.len();
                let Some(state) = order.get(done) else { break };
                done += 1;
                if let Rule::Made(at) = states.rules[class][*state]
                    && let Some(tensor) = tour.calls.list(*n).get(at)
                {
                    let root = (Port::Operand { at, index: 0 }, tensor);
                    tour.calls.reads(*n, root, &mut seen, &mut found);
                }
            }
        }
        order.extend(
            (0..count)
                .filter(|s| !order.contains(s))
                .collect::<Vec<_>>(),
        );
        let mut number = vec![0; count];
        order
            .iter()
            .enumerate()
            .for_each(|(new, old)| number[*old] = new);
        let renamed = |rule: &Rule| match rule {
            Rule::Made(at) => Rule::Made(*at),
            Rule::Kept(state) => Rule::Kept(number[*state]),
        };
        let rules = states.rules.iter();
        let rules = rules.map(|of| order.iter().map(|old| renamed(&of[*old])).collect());
        let reads = states.reads.iter();
        let reads = reads.map(|of| of.iter().map(|(port, s)| (*port, number[*s])).collect());
        States {
            rules: rules.collect(),
            reads: reads.collect(),
        }
    }
}

fn count(blocks: &[usize]) -> usize {
    blocks.iter().max().map_or(0, |m| m + 1)
}
