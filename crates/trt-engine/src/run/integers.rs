//! The runtime integers of a call, read off the shapes of its inputs.
//!
//! Sizes of inputs are polynomials in the runtime integers, so the shapes of a call are a system of
//! equations: linear ones, and those that become linear once others are solved (`batch * length`
//! where a mask shows `batch`). What it determines is taken, what it leaves open must be given
//! with the call (unless its range is one value): nothing is guessed, and every size is compared in
//! the end. Integers that a program computes of others are not read off: a floor has several numerators.

use crate::error::Error;
use candle_core::Tensor;
use trt_graph::program::Program;
use trt_graph::{Class, InputDecl};
use trt_kernel::{Dim, Env, Var};

/// `Σ coefficients[v] * v = value`.
struct Equation {
    coefficients: [i128; Var::MAX],
    value: i128,
}

/// The integers of a call in one class: from the inputs, the session's position, and what the
/// caller says.
///
/// # Errors
/// [`Error::Input`], [`Error::Integer`], [`Error::NoInteger`] or [`Error::Contradiction`].
pub(crate) fn solve(
    program: &Program,
    class: &Class,
    inputs: &[Tensor],
    given: &[(&str, i64)],
    position: usize,
) -> Result<Vec<i64>, Error> {
    let declared = &program.inputs;
    if declared.len() != inputs.len() {
        return Err(Error::Input {
            name: "all".into(),
            expected: format!("{} tensors", declared.len()),
            got: format!("{}", inputs.len()),
            class: crate::error::class(class),
        });
    }
    let mut values = known(class, given, position)?;
    // Each round solves an integer at least.
    for _ in 0..=class.ints.len() {
        let before = values.clone();
        let solved = eliminate(equations(declared, inputs, &values));
        for ((value, int), solved) in values.iter_mut().zip(&class.ints).zip(solved) {
            let only = (int.range.min == int.range.max).then_some(int.range.min);
            *value = value.or(solved).or(only);
        }
        if values == before {
            break;
        }
    }
    compare(program, class, inputs, &values)?;
    let each = class.ints.iter().zip(&values);
    let all = each.map(|(int, value)| {
        value.ok_or_else(|| Error::Integer {
            name: int.name.clone(),
            min: int.range.min,
            max: int.range.max,
        })
    });
    all.collect()
}

/// What is known without the inputs: the position, what the caller gives, and ranges of one value.
fn known(class: &Class, given: &[(&str, i64)], position: usize) -> Result<Vec<Option<i64>>, Error> {
    if let Some((name, _)) = given
        .iter()
        .find(|(n, _)| class.ints.iter().all(|i| i.name != *n))
    {
        let names: Vec<&str> = class.ints.iter().map(|i| i.name.as_str()).collect();
        return Err(Error::NoInteger {
            name: (*name).into(),
            known: names.join(", "),
        });
    }
    let past = class.positions().map(|p| p.past);
    let value = |(i, name): (usize, &str)| {
        let mut own = given.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v);
        let value = own.next();
        let here = (past == Some(i)).then_some(position as i64);
        let differs = own
            .find(|v| Some(*v) != value)
            .map(|v| (value.unwrap_or(v), v));
        match (differs, here, value) {
            (Some((a, b)), ..) | (None, Some(a), Some(b)) if a != b => Err(Error::Contradiction {
                name: name.into(),
                a,
                b,
            }),
            _ => Ok(here.or(value)),
        }
    };
    let names = class.ints.iter().map(|i| i.name.as_str());
    names.enumerate().map(value).collect()
}

/// What is known, and what the shapes say beside it.
fn equations(declared: &[InputDecl], inputs: &[Tensor], known: &[Option<i64>]) -> Vec<Equation> {
    let given = |(v, value): (usize, &Option<i64>)| {
        let mut equation = Equation {
            coefficients: [0; Var::MAX],
            value: i128::from((*value)?),
        };
        *equation.coefficients.get_mut(v)? = 1;
        Some(equation)
    };
    let given = known.iter().enumerate().filter_map(given);
    let fits = |(d, t): &(&InputDecl, &Tensor)| d.shape.len() == t.rank();
    let shown = declared.iter().zip(inputs).filter(fits);
    let sizes = shown.flat_map(|(d, t)| d.shape.iter().zip(t.dims()));
    let shown = sizes.filter_map(|(dim, size)| equation(dim, *size, known));
    given.chain(shown).collect()
}

/// `dim = size`, where no term of the dim has two integers that are not known, and any has one.
fn equation(dim: &Dim, size: usize, known: &[Option<i64>]) -> Option<Equation> {
    let mut equation = Equation {
        coefficients: [0; Var::MAX],
        value: i128::try_from(size).ok()?,
    };
    for (powers, factor) in dim.terms() {
        let (mut factor, mut open) = (i128::from(*factor), None);
        for (v, power) in powers.iter().enumerate().filter(|(_, p)| **p > 0) {
            match (known.get(v).copied().flatten(), open) {
                (Some(value), _) => {
                    let value = i128::from(value).checked_pow(u32::from(*power))?;
                    factor = factor.checked_mul(value)?;
                }
                (None, None) if *power == 1 => open = Some(v),
                (None, _) => return None,
            }
        }
        match open {
            Some(v) => equation.coefficients[v] = equation.coefficients[v].checked_add(factor)?,
            None => equation.value = equation.value.checked_sub(factor)?,
        }
    }
    let depends = equation.coefficients.iter().any(|c| *c != 0);
    depends.then_some(equation)
}

/// The values that equations determine. Where they contradict each other the first ones count:
/// comparing the shapes then names the other.
fn eliminate(equations: Vec<Equation>) -> [Option<i64>; Var::MAX] {
    let mut rows: Vec<(usize, Equation)> = Vec::new();
    for mut e in equations {
        for (pivot, row) in &rows {
            cancel(&mut e, row, *pivot);
        }
        let Some(pivot) = e.coefficients.iter().position(|c| *c != 0) else {
            continue;
        };
        for (_, row) in &mut rows {
            cancel(row, &e, pivot);
        }
        rows.push((pivot, e));
    }
    let mut values = [None; Var::MAX];
    for (pivot, row) in rows {
        let only = |(v, c): (usize, &i128)| (v == pivot) == (*c != 0);
        if row.coefficients.iter().enumerate().all(only) {
            // A fraction is no solution; comparing the shapes says so.
            values[pivot] = i64::try_from(row.value.div_euclid(row.coefficients[pivot])).ok();
        }
    }
    values
}

/// Takes a variable out of an equation by another one. Coefficients are those of real sizes, and
/// at most as many steps multiply them as there are integers; where even that overflows, the equation says nothing.
fn cancel(e: &mut Equation, by: &Equation, pivot: usize) {
    let (a, b) = (e.coefficients[pivot], by.coefficients[pivot]);
    if a == 0 {
        return;
    }
    let step = |x: i128, y: i128| x.checked_mul(b)?.checked_sub(y.checked_mul(a)?);
    let mut next = Equation {
        coefficients: [0; Var::MAX],
        value: 0,
    };
    let mut fits = true;
    for v in 0..Var::MAX {
        match step(e.coefficients[v], by.coefficients[v]) {
            Some(c) => next.coefficients[v] = c,
            None => fits = false,
        }
    }
    match (step(e.value, by.value), fits) {
        (Some(value), true) => next.value = value,
        _ => next.coefficients = [0; Var::MAX],
    }
    *e = next;
}

/// The sizes of a call as far as its integers are known.
struct Known<'a> {
    program: &'a Program,
    env: Env,
    /// Of each integer, those included that are computed, whether it is known.
    known: Vec<bool>,
    values: &'a [Option<i64>],
}

impl Known<'_> {
    fn new<'a>(program: &'a Program, values: &'a [Option<i64>]) -> Known<'a> {
        let each: Vec<i64> = values.iter().map(|v| v.unwrap_or(0)).collect();
        let mut known: Vec<bool> = values.iter().map(Option::is_some).collect();
        for floor in &program.floors {
            let of = |v: Var| known.get(v.0 as usize) == Some(&true);
            known.push(floor.of.vars().all(of));
        }
        Known {
            program,
            env: program.env(&each),
            known,
            values,
        }
    }

    fn is(&self, dim: &Dim) -> bool {
        dim.vars()
            .all(|v| self.known.get(v.0 as usize) == Some(&true))
    }

    fn size(&self, dim: &Dim) -> Option<i64> {
        dim.checked_eval(&self.env).filter(|_| self.is(dim))
    }

    /// A declared shape in words: `f32[n, 2*n + 1], which is [5, 11] with n=5`.
    fn expected(&self, d: &InputDecl) -> String {
        let names = self.program.integer_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let symbols: Vec<String> = d.shape.iter().map(|s| s.named(&names)).collect();
        let declared = format!("{}[{}]", d.dtype, symbols.join(", "));
        let used = self.used(d);
        let known = |(v, value): (usize, &Option<i64>)| {
            let value = value.filter(|_| used.get(v) == Some(&true))?;
            Some(format!("{}={value}", names[v]))
        };
        let known: Vec<String> = self.values.iter().enumerate().filter_map(known).collect();
        if known.is_empty() {
            return declared;
        }
        let size = |s: &Dim| self.size(s).map_or("?".into(), |n| n.to_string());
        let sizes: Vec<String> = d.shape.iter().map(size).collect();
        let (sizes, known) = (sizes.join(", "), known.join(" "));
        format!("{declared}, which is [{sizes}] with {known}")
    }

    /// Which integers a shape depends on.
    fn used(&self, d: &InputDecl) -> Vec<bool> {
        let mut used = vec![false; self.known.len()];
        let mut mark = |dim: &Dim| dim.vars().for_each(|v| used[v.0 as usize] = true);
        d.shape.iter().for_each(&mut mark);
        let floors = self.program.floors.iter().enumerate().rev();
        for (i, floor) in floors {
            if used[self.program.ints.len() + i] {
                floor.of.vars().for_each(|v| used[v.0 as usize] = true);
            }
        }
        used
    }
}

/// Compares what every input is with what it is declared as, as far as the integers are known.
fn compare(
    program: &Program,
    class: &Class,
    inputs: &[Tensor],
    values: &[Option<i64>],
) -> Result<(), Error> {
    let known = Known::new(program, values);
    for (d, t) in program.inputs.iter().zip(inputs) {
        let fits = |(dim, found): (&Dim, &usize)| {
            !known.is(dim) || known.size(dim) == i64::try_from(*found).ok()
        };
        let same = d.shape.len() == t.rank()
            && d.shape.iter().zip(t.dims()).all(fits)
            && super::tensor_bytes::candle_dtype(d.dtype) == t.dtype();
        if !same {
            return Err(Error::Input {
                name: d.name.clone(),
                expected: known.expected(d),
                got: format!("{:?}{:?}", t.dtype(), t.dims()),
                class: crate::error::class(class),
            });
        }
    }
    Ok(())
}

/// A call's integers of which some are outside of the class, with the inputs that show those:
/// `n=10 (input 'x' is F32[1, 10])`.
pub(crate) fn outside(
    program: &Program,
    class: &Class,
    inputs: &[Tensor],
    values: &[i64],
) -> String {
    let out = |(i, v): (usize, &i64)| {
        let range = class.ints[i].range;
        !(range.min..=range.max).contains(v)
    };
    let out: Vec<bool> = values.iter().enumerate().map(out).collect();
    let depends = |d: &Dim| d.vars().any(|v| out.get(v.0 as usize) == Some(&true));
    let shows = |(d, t): (&InputDecl, &Tensor)| {
        let shows = d.shape.iter().any(depends);
        shows.then(|| format!("input '{}' is {:?}{:?}", d.name, t.dtype(), t.dims()))
    };
    let shown: Vec<String> = program
        .inputs
        .iter()
        .zip(inputs)
        .filter_map(shows)
        .collect();
    match shown.is_empty() {
        true => class.describe(values),
        false => format!("{} ({})", class.describe(values), shown.join(", ")),
    }
}
