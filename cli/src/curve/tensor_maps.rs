//! Prompts without and with products that are fed by tensor maps.
//!
//! Two devices on one GPU, an engine on each, and the same prompts by turns, so that clocks and
//! warmth fall on both.

use super::CurveArgs;
use super::measure::{Bench, prompt};
use super::open::{self, Opened};
use anyhow::{Result, bail, ensure};
use candle_trt::models::DecoderConfig;
use candle_trt::{Request, Session, Weights};
use std::sync::Arc;
use std::time::Instant;

/// Prompts of each length on each engine, after one that is not counted.
const ROUNDS: usize = 9;

pub fn print(
    plain: &Opened,
    weights: Arc<Weights>,
    config: &DecoderConfig,
    args: &CurveArgs,
) -> Result<()> {
    let Some(mapped) = open::cuda(args, &weights)? else {
        bail!("--tensor-maps needs --device cuda or cuda:N");
    };
    let mapped = Arc::new(mapped.with_tensor_maps()?);
    ensure!(
        mapped.tensor_maps(),
        "this device or its driver has no tensor maps"
    );
    let budget = Request::Full;
    // Pages are locked once by each device, so each has a mapping of its own.
    let again = Arc::new(Weights::open(&args.model)?);
    let bench = |device, weights| Bench::new(device, weights, config, args, budget);
    let benches = [
        bench(plain.device.clone(), weights)?,
        bench(mapped.clone(), again)?,
    ];
    let mut sessions = [benches[0].engine.session()?, benches[1].engine.session()?];
    for &tokens in &args.prefill {
        let before = mapped.mapped_launches();
        let mut seconds = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            let [without, with] = &mut sessions;
            let runs = [once(without, tokens)?, once(with, tokens)?];
            ensure!(
                runs[0].1 == runs[1].1,
                "{tokens} tokens have other bits with maps"
            );
            if round > 0 {
                let each = seconds.iter_mut().zip(&runs);
                each.for_each(|(all, (seconds, _))| all.push(*seconds));
            }
        }
        let launches = mapped.mapped_launches() - before;
        let [without, with] = seconds.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        });
        let rate = |seconds| benches[0].flops(tokens) / seconds / 1e12;
        println!(
            "prefill {tokens:>5} tokens: {:.2} ms, {:.0} TFLOP/s without tensor maps; {:.2} ms, {:.0} \
             TFLOP/s with them ({launches} launches put or recorded); same bits",
            without * 1e3,
            rate(without),
            with * 1e3,
            rate(with),
        );
    }
    Ok(())
}

/// Seconds of a prompt, and the bits of its logits.
fn once(session: &mut Session, tokens: usize) -> Result<(f64, Vec<u32>)> {
    let ids = prompt(tokens);
    session.reset();
    let start = Instant::now();
    let logits = session.prefill(&ids)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, logits.iter().map(|v| v.to_bits()).collect()))
}
