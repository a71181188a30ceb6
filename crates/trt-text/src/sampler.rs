//! Choosing the next token by its logits.
//!
//! The steps come in the order in which transformers applies them: repetition penalty, temperature, top-k, top-p, min-p,
//! then a draw. Each step keeps a prefix of the candidates in falling order, never an empty one, so a draw always finds
//! one. Only as many candidates are put in order as a step looks at.

use fastrand::Rng;

use crate::Error;

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token always. At least 0.
    pub temperature: f64,
    /// Only that many of the most likely tokens. At least 1.
    pub top_k: Option<usize>,
    /// Only the fewest most likely tokens that together have this probability. Above 0, up to 1.
    pub top_p: Option<f64>,
    /// Only tokens at least this many times as likely as the most likely one. From 0 to 1.
    pub min_p: Option<f64>,
    /// What logits of tokens that were there before are divided by (multiplied with, where they are negative). Above 0.
    pub repetition_penalty: Option<f64>,
    /// Where the random numbers begin: the same seed draws the same tokens from the same logits on every machine.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy: always the most likely token.
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: 0,
        }
    }
}

/// Chooses tokens; holds the state of its random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
    order: Vec<u32>,
    weights: Vec<f64>,
}

impl Sampler {
    /// A sampler at the beginning of its random numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Sampling`] names the first parameter that is outside of its range.
    pub fn new(sampling: Sampling) -> Result<Self, Error> {
        let s = &sampling;
        let within = |name, value: Option<f64>, good: fn(f64) -> bool, range| match value {
            Some(value) if !(value.is_finite() && good(value)) => Err(Error::Sampling {
                name,
                value: value.to_string(),
                range,
            }),
            _ => Ok(()),
        };
        within(
            "temperature",
            Some(s.temperature),
            |t| t >= 0.0,
            "it is a number of at least 0",
        )?;
        within(
            "top_k",
            s.top_k.map(|k| k as f64),
            |k| k >= 1.0,
            "it is at least 1",
        )?;
        within(
            "top_p",
            s.top_p,
            |p| p > 0.0 && p <= 1.0,
            "it is above 0 and at most 1",
        )?;
        within(
            "min_p",
            s.min_p,
            |p| (0.0..=1.0).contains(&p),
            "it is from 0 to 1",
        )?;
        within(
            "repetition_penalty",
            s.repetition_penalty,
            |p| p > 0.0,
            "it is a number above 0",
        )?;
        Ok(Sampler {
            rng: Rng::with_seed(sampling.seed),
            sampling,
            order: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// The token that follows `before`, by the logits of every token of the vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where a logit is infinite or no number, [`Error::NoLogits`] where there are none.
    pub fn sample(&mut self, logits: &mut [f32], before: &[u32]) -> Result<u32, Error> {
        let position = before.len();
        let count = logits.iter().filter(|l| !l.is_finite()).count();
        if count > 0 {
            let of = logits.len();
            return Err(Error::NotFinite {
                count,
                of,
                position,
            });
        }
        if let Some(penalty) = self.sampling.repetition_penalty {
            repel(logits, before, penalty as f32);
        }
        let best = most_likely(logits).ok_or(Error::NoLogits { position })?;
        match self.sampling.temperature {
            0.0 => Ok(best),
            temperature => Ok(self.draw(logits, best, temperature)),
        }
    }

    fn draw(&mut self, logits: &[f32], best: u32, temperature: f64) -> u32 {
        let top = f64::from(logits[best as usize]);
        self.weights.clear();
        self.weights.extend(
            logits
                .iter()
                .map(|l| ((f64::from(*l) - top) / temperature).exp()),
        );
        let weights = &self.weights;
        let mut candidates = Candidates::new(&mut self.order, weights);
        if let Some(k) = self.sampling.top_k {
            candidates.keep_first(k);
        }
        if let Some(p) = self.sampling.top_p
            && p < 1.0
        {
            candidates.keep_probable(p);
        }
        if let Some(p) = self.sampling.min_p {
            candidates.keep_near(p);
        }
        let kept = candidates.kept();
        let total: f64 = kept.iter().map(|i| weights[*i as usize]).sum();
        let mut left = self.rng.f64() * total;
        for i in kept {
            left -= weights[*i as usize];
            if left < 0.0 {
                return *i;
            }
        }
        // Rounding may leave a little of the sum.
        best
    }
}

/// Divides what speaks for tokens that were there, once for each, whatever their number.
fn repel(logits: &mut [f32], before: &[u32], penalty: f32) {
    let mut seen = before.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some(logit) = logits.get_mut(token as usize) {
            let changed = if *logit < 0.0 {
                *logit * penalty
            } else {
                *logit / penalty
            };
            *logit = changed.clamp(f32::MIN, f32::MAX);
        }
    }
}

/// The first of the greatest.
fn most_likely(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (i, logit) in (0..).zip(logits) {
        if best.is_none_or(|(_, most)| *logit > most) {
            best = Some((i, *logit));
        }
    }
    best.map(|(i, _)| i)
}

/// Tokens of which a number is kept, and of those a number is in falling order, equal ones by their number.
struct Candidates<'a> {
    order: &'a mut Vec<u32>,
    weights: &'a [f64],
    sorted: usize,
}

impl<'a> Candidates<'a> {
    fn new(order: &'a mut Vec<u32>, weights: &'a [f64]) -> Self {
        order.clear();
        order.extend(0..weights.len() as u32);
        Candidates {
            order,
            weights,
            sorted: 0,
        }
    }

    /// Puts the first `count` in order.
    fn sort(&mut self, count: usize) {
        let count = count.min(self.order.len());
        if count <= self.sorted {
            return;
        }
        let weights = self.weights;
        let falling = |a: &u32, b: &u32| {
            let (x, y) = (weights[*a as usize], weights[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let rest = &mut self.order[self.sorted..];
        let more = count - self.sorted;
        if more < rest.len() {
            rest.select_nth_unstable_by(more, falling);
        }
        rest[..more].sort_unstable_by(falling);
        self.sorted = count;
    }

    fn keep_first(&mut self, count: usize) {
        self.sort(count);
        self.order.truncate(count.max(1));
    }

    /// The fewest whose sum is at least `p` of the whole.
    fn keep_probable(&mut self, p: f64) {
        let total: f64 = self.order.iter().map(|i| self.weights[*i as usize]).sum();
        let (mut sum, mut at) = (0.0, 0);
        while at < self.order.len() && sum < p * total {
            if at == self.sorted {
                self.sort((4 * at).max(64));
            }
            sum += self.weights[self.order[at] as usize];
            at += 1;
        }
        self.keep_first(at);
    }

    /// Those that are at least `p` times as likely as the first. The best has the weight 1.
    fn keep_near(&mut self, p: f64) {
        let weights = self.weights;
        self.order.retain(|i| weights[*i as usize] >= p);
        self.sorted = self.sorted.min(self.order.len());
    }

    fn kept(&self) -> &[u32] {
        self.order
    }
}
