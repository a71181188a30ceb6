//! From noise to a picture in steps: Euler's method along how much noise there is.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// What of `scheduler/scheduler_config.json` is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: Betas,
    #[serde(default)]
    pub prediction_type: Prediction,
    #[serde(default)]
    pub timestep_spacing: Spacing,
    #[serde(default)]
    pub steps_offset: usize,
}

/// How the noise of a step of training grows: evenly, or its root does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Betas {
    Linear,
    ScaledLinear,
}

/// What the network gives: the noise, or what is between noise and picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    #[default]
    Epsilon,
    VPrediction,
}

/// Which times of training are gone through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    #[default]
    Linspace,
    Leading,
    Trailing,
}

/// The steps of a picture.
#[derive(Debug, Clone)]
pub struct Steps {
    /// The time of each.
    pub times: Vec<f64>,
    /// How much noise there is before each, and after the last.
    sigmas: Vec<f64>,
    prediction: Prediction,
    /// How much noise a picture begins as.
    pub start: f64,
}

impl Steps {
    /// # Errors
    ///
    /// If there are no steps, or more than were trained.
    pub fn new(config: &Config, count: usize) -> Result<Steps> {
        let all = config.num_train_timesteps;
        ensure!(
            (1..=all).contains(&count) && all > 1,
            "{count} steps of {all}"
        );
        let trained = sigmas(config);
        let last = (all - 1) as f64;
        let times: Vec<f64> = match config.timestep_spacing {
            Spacing::Linspace if count == 1 => vec![0.0],
            Spacing::Linspace => {
                let time = |i: usize| last * (count - 1 - i) as f64 / (count - 1) as f64;
                (0..count).map(time).collect()
            }
            Spacing::Leading => {
                let time = |i| ((count - 1 - i) * (all / count) + config.steps_offset) as f64;
                (0..count).map(time).collect()
            }
            Spacing::Trailing => {
                let time =
                    |i| (all as f64 - (i * all) as f64 / count as f64).round_ties_even() - 1.0;
                (0..count).map(time).collect()
            }
        };
        let sigma = |time: &f64| {
            let low = time.clamp(0.0, last).floor();
            let at = |t: f64| trained[(t as usize).min(all - 1)];
            at(low) + (time.clamp(0.0, last) - low) * (at(low + 1.0) - at(low))
        };
        let mut sigmas: Vec<f64> = times.iter().map(sigma).collect();
        let most = sigmas.iter().copied().fold(0.0, f64::max);
        sigmas.push(0.0);
        Ok(Steps {
            times,
            sigmas,
            prediction: config.prediction_type,
            start: match config.timestep_spacing {
                Spacing::Linspace | Spacing::Trailing => most,
                Spacing::Leading => (most * most + 1.0).sqrt(),
            },
        })
    }

    /// What the network is shown instead of a step's picture is that times this.
    pub fn shown(&self, step: usize) -> f64 {
        (self.sigmas[step].powi(2) + 1.0).sqrt().recip()
    }

    /// How much of the picture and of what the network gives the next picture is.
    pub fn next(&self, step: usize) -> [f64; 2] {
        let (sigma, further) = (self.sigmas[step], self.sigmas[step + 1] - self.sigmas[step]);
        match self.prediction {
            Prediction::Epsilon => [1.0, further],
            Prediction::VPrediction => {
                let all = sigma * sigma + 1.0;
                [1.0 + further * sigma / all, further / all.sqrt()]
            }
        }
    }
}

/// How much noise there is to a unit of the picture at each time of training.
fn sigmas(config: &Config) -> Vec<f64> {
    let (all, start, end) = (
        config.num_train_timesteps,
        config.beta_start,
        config.beta_end,
    );
    let between = |a: f64, b: f64, i: usize| a + (b - a) * i as f64 / (all - 1) as f64;
    let beta = |i| match config.beta_schedule {
        Betas::Linear => between(start, end, i),
        Betas::ScaledLinear => between(start.sqrt(), end.sqrt(), i).powi(2),
    };
    let mut left = 1.0;
    let sigma = |i| {
        left *= 1.0 - beta(i);
        ((1.0 - left) / left).sqrt()
    };
    (0..all).map(sigma).collect()
}
