//! Inputs of models and the ways that they are called in, by the kinds that there are.

use super::*;

/// A decoder of tokens, in prompts behind others and token by token, one text and three at once.
pub fn decoder(
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let prompts = vec![
        [vec![6], vec![1; 8]].concat(),
        [vec![9, 3], vec![1; 8]].concat(),
    ];
    let ways = vec![
        positions("prompts", 1, 12, prompts.clone()),
        positions("batch of 3", 3, 12, prompts),
    ];
    (of_tokens(ways), Box::new(load))
}

/// A decoder that has masks for prompts at the start only, so that others run token by token.
pub fn starter(
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let prompts = [6, 9].map(|n| [vec![n], vec![1; 8]].concat()).to_vec();
    let ways = vec![
        positions("prompts at the start", 1, 12, prompts),
        positions("tokens", 1, 1, vec![vec![1; 14], vec![1; 9]]),
    ];
    (of_tokens(ways), Box::new(load))
}

/// A decoder whose code does something else from this position on.
pub fn split_by_position(from: i64, case: (Spec, Load)) -> (Spec, Load) {
    split_where("past", from, |_| true, case)
}

/// A decoder whose code does something else for so many tokens at once.
pub fn split_by_tokens(from: i64, case: (Spec, Load)) -> (Spec, Load) {
    split_where("seq", from, |longest| longest as i64 >= from, case)
}

fn split_where(
    name: &'static str,
    from: i64,
    has: impl Fn(usize) -> bool,
    (mut spec, load): (Spec, Load),
) -> (Spec, Load) {
    for way in &mut spec.ways {
        match &mut way.varies {
            Varies::Positions { split, longest, .. } if has(*longest) => split.push((name, from)),
            Varies::Positions { .. } | Varies::Sizes { .. } => {}
        }
    }
    (spec, load)
}

/// A decoder that takes tokens one by one.
pub fn stepper(
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let steps = || vec![vec![1; 14], vec![1; 9]];
    let ways = vec![
        positions("tokens", 1, 1, steps()),
        positions("batch of 3", 3, 1, steps()),
    ];
    (of_tokens(ways), Box::new(load))
}

pub fn positions(
    name: &'static str,
    batch: usize,
    longest: usize,
    sessions: Vec<Vec<usize>>,
) -> Way {
    let varies = Varies::Positions {
        context: 40,
        longest,
        sessions,
        split: Vec::new(),
    };
    Way {
        name,
        varies,
        fixed: vec![(BATCH, batch)],
    }
}

/// A model of texts in one call: its inputs are of `[batch, length]`, where they are not something else.
pub fn texts(
    more: Vec<Input>,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let ways = vec![
        once(
            "lengths",
            vec![(BATCH, 1)],
            vec![(LENGTH, 2, 24)],
            vec![vec![5], vec![17]],
        ),
        once(
            "batches",
            vec![(LENGTH, 6)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once(
            "batches of lengths",
            vec![],
            vec![(BATCH, 1, 4), (LENGTH, 2, 24)],
            vec![vec![1, 5], vec![3, 17]],
        ),
    ];
    let ids = Input {
        name: "ids",
        shape: text(),
        values: Values::Tokens(VOCAB as u32),
    };
    (Spec::of([vec![ids], more].concat(), ways), Box::new(load))
}

/// A model of square images of one size, one image and a range of them.
pub fn images(
    side: usize,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let ways = vec![
        once("one image", vec![(BATCH, 1)], vec![], vec![vec![]]),
        once(
            "batches",
            vec![],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
    ];
    (of_images(Size::Of(side), ways), Box::new(load))
}

/// A model of images of any size: their sides are so many times a number that varies.
pub fn any_images(
    step: usize,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let sides = || vec![(SIDE, 2, 5)];
    let ways = vec![
        once(
            "batches",
            vec![(SIDE, 2)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once("sizes", vec![(BATCH, 1)], sides(), vec![vec![2], vec![3]]),
    ];
    (of_images(Size::Times(step, SIDE), ways), Box::new(load))
}

pub fn of_images(side: Size, ways: Vec<Way>) -> Spec {
    let image = Input {
        name: "image",
        shape: vec![Size::Named(BATCH), Size::Of(3), side, side],
        values: Values::Noise,
    };
    Spec::of(vec![image], ways)
}

/// A model that is called with these inputs of one size.
pub fn fixed(
    inputs: Vec<Input>,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let ways = vec![once("one call", vec![], vec![], vec![vec![]])];
    (Spec::of(inputs, ways), Box::new(load))
}

/// Numbers of one shape.
pub fn noise(name: &'static str, shape: &[usize]) -> Input {
    Input {
        name,
        shape: shape.iter().map(|n| Size::Of(*n)).collect(),
        values: Values::Noise,
    }
}

/// The same number everywhere in one shape.
pub fn all_of(name: &'static str, shape: &[usize], value: f32) -> Input {
    Input {
        values: Values::All(value),
        ..noise(name, shape)
    }
}

/// The name of the number that the side of an image is a multiple of.
pub const SIDE: &str = "side";

pub fn once(
    name: &'static str,
    fixed: Vec<(&'static str, usize)>,
    ranges: Vec<(&'static str, i64, i64)>,
    calls: Vec<Vec<usize>>,
) -> Way {
    let varies = Varies::Sizes { ranges, calls };
    Way {
        name,
        varies,
        fixed,
    }
}

/// The name of the number of tokens in a text.
pub const LENGTH: &str = "length";

pub fn text() -> Vec<Size> {
    vec![Size::Named(BATCH), Size::Named(LENGTH)]
}

/// Which tokens of a text are no padding.
pub fn kept() -> Input {
    Input {
        name: "mask",
        shape: text(),
        values: Values::Kept,
    }
}

/// What kind each token of a text is: all are of one.
pub fn kinds() -> Input {
    Input {
        name: "kinds",
        shape: text(),
        values: Values::Same(0),
    }
}

/// So many rows of another model for each text.
pub fn rows(name: &'static str, n: usize, width: usize) -> Input {
    Input {
        name,
        shape: vec![Size::Named(BATCH), Size::Of(n), Size::Of(width)],
        values: Values::Noise,
    }
}

/// The same case with further inputs.
pub fn with((mut spec, load): (Spec, Load), more: Vec<Input>) -> (Spec, Load) {
    spec.inputs.extend(more);
    (spec, load)
}

pub fn of_tokens(ways: Vec<Way>) -> Spec {
    let ids = Input {
        name: "ids",
        shape: vec![Size::Named(BATCH), Size::Named(SEQ)],
        values: Values::Tokens(VOCAB as u32),
    };
    Spec::of(vec![ids], ways)
}
