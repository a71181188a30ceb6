//! How a budget for several engines is shared: pure data.
//!
//! Every engine gets its floor. What is left goes tile by tile to the engine whose next tile saves
//! most time for each of its bytes, which is what the link needs for it in the engine's passes,
//! weighted by how much the engine's time matters. Equal gains go to the engine that has come least
//! far. So the shares at a smaller budget are never larger than at a larger one, and they add up to
//! the budget exactly unless every engine has all that it can use.

use serde::{Deserialize, Serialize};

/// What one engine can do with memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The least that it runs with, in bytes.
    pub floor: u64,
    /// The most that it can use, in bytes.
    pub total: u64,
    /// What a second of its copying costs, compared with that of others: its priority times how
    /// often it runs, over the rate of its link. Anything but a positive number counts as 0: such
    /// an engine gets more than its floor only when the others have all.
    pub weight: f64,
    /// Its tiles in the order in which they become resident.
    pub tiles: Vec<Gain>,
}

/// What a resident tile gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// Its bytes on the device.
    pub held: u64,
    /// Its bytes on the link.
    pub stored: u64,
    /// How often a cycle over the programs would fetch it.
    pub uses: u32,
}

impl Gain {
    /// Bytes that need not cross the link in a cycle, for each byte of memory.
    fn spared(&self) -> f64 {
        match self.held {
            0 => f64::from(self.uses),
            // Divided last, so that equal gains are equal numbers.
            held => f64::from(self.uses) * self.stored as f64 / held as f64,
        }
    }
}

/// The bytes of each engine, in the order of the demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Between an engine's floor and total.
    pub bytes: Vec<u64>,
    /// Bytes that no engine can use.
    pub remainder: u64,
}

/// A budget below the sum of the floors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a budget of {budget} bytes is {shortfall} bytes below the floors of its engines: {}",
    sum(floors)
)]
pub struct BelowFloors {
    /// The budget.
    pub budget: u64,
    /// The floor of each engine, in the order of the demands.
    pub floors: Vec<u64>,
    /// Bytes that are missing.
    pub shortfall: u64,
}

fn sum(floors: &[u64]) -> String {
    let floors: Vec<String> = floors.iter().map(u64::to_string).collect();
    match floors.is_empty() {
        true => "none".into(),
        false => floors.join(" + "),
    }
}

impl Demand {
    fn room(&self) -> u64 {
        self.total.saturating_sub(self.floor)
    }

    /// What a byte of the tile at this place gains; 0 beyond the last.
    fn worth(&self, tile: usize) -> f64 {
        let spared = self.tiles.get(tile).map_or(0., Gain::spared);
        match self.weight > 0. && self.weight.is_finite() {
            true => self.weight * spared,
            false => 0.,
        }
    }
}

/// How far an engine has come.
#[derive(Clone, Default)]
struct Taken {
    /// Bytes above the floor.
    bytes: u64,
    /// Tiles.
    tiles: usize,
}

/// Shares a budget.
///
/// # Errors
/// If the budget is below the sum of the floors.
///
/// ```
/// use trt_stream::{Demand, Gain, share};
///
/// let engine = |weight| Demand {
///     floor: 100,
///     total: 500,
///     weight,
///     tiles: vec![Gain { held: 50, stored: 50, uses: 1 }; 10],
/// };
/// // Equal engines get equal shares; one whose time matters more comes first.
/// assert_eq!(share(800, &[engine(1.), engine(1.)])?.bytes, [400, 400]);
/// assert_eq!(share(800, &[engine(1.), engine(2.)])?.bytes, [300, 500]);
/// assert_eq!(share(2000, &[engine(1.), engine(2.)])?.remainder, 1000);
/// # Ok::<(), trt_stream::BelowFloors>(())
/// ```
pub fn share(budget: u64, demands: &[Demand]) -> Result<Shares, BelowFloors> {
    let floors: Vec<u64> = demands.iter().map(|d| d.floor).collect();
    let least = floors.iter().fold(0u64, |sum, f| sum.saturating_add(*f));
    let Some(mut left) = budget.checked_sub(least) else {
        return Err(BelowFloors {
            budget,
            floors,
            shortfall: least - budget,
        });
    };
    let mut taken = vec![Taken::default(); demands.len()];
    while left > 0 {
        let open = (0..demands.len()).filter(|i| taken[*i].bytes < demands[*i].room());
        let Some(next) = open.max_by(|a, b| order(demands, &taken, *a, *b)) else {
            break;
        };
        let (demand, own) = (&demands[next], &mut taken[next]);
        let room = demand.room() - own.bytes;
        let tile = demand.tiles.get(own.tiles).map_or(room, |t| t.held);
        let bytes = tile.min(room).min(left);
        own.bytes += bytes;
        own.tiles += 1;
        left -= bytes;
    }
    let bytes = floors.iter().zip(&taken).map(|(f, t)| f + t.bytes);
    Ok(Shares {
        bytes: bytes.collect(),
        remainder: left,
    })
}

/// Orders two engines by what their next tile gains, then by how little of their room they have,
/// then the first after the others: no two are equal.
fn order(demands: &[Demand], taken: &[Taken], a: usize, b: usize) -> std::cmp::Ordering {
    let worth = |i: usize| demands[i].worth(taken[i].tiles);
    // a.bytes / a.room against b.bytes / b.room.
    let part = |i: usize, of: usize| u128::from(taken[i].bytes) * u128::from(demands[of].room());
    let gain = worth(a).total_cmp(&worth(b));
    gain.then_with(|| part(b, a).cmp(&part(a, b)))
        .then_with(|| b.cmp(&a))
}
