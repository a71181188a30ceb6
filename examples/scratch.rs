//! scratch
use candle_trt::models::*;
use candle_trt::*;
use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().collect();
    let dir = &a[1];
    let config = Config::from_file(format!("{dir}/config.json"))?;
    let t = Instant::now();
    let mode = if a.get(3).is_some_and(|m| m == "discrete") {
        device::HostMode::Discrete
    } else {
        device::HostMode::Unified
    };
    let engine = Compiler::new(Weights::open(dir)?)
        .device(device::Host::new(mode))
        .weight_streaming(true)
        .profile(Profile::decoder(1024, 512)?)
        .budget(a[2].parse()?)
        .compile(|vb| {
            Llama::load_with(
                vb,
                &config,
                &LoadOptions {
                    max_positions: Some(1024),
                },
            )
        })?;
    println!("compile {:?} {:?}", t.elapsed(), engine.device_budget()?);
    println!(
        "{:.3} {:.3}",
        engine.report().trace_seconds,
        engine.report().compile_seconds
    );
    let mut s = engine.session()?;
    let prompt: Vec<u32> = (0..512u32).map(|i| (i * 97 + 5) % 40000).collect();
    for _ in 0..(if std::env::var("NOPRE").is_ok() { 0 } else { 3 }) {
        s.reset();
        let t = Instant::now();
        s.prefill(&prompt)?;
        println!(
            "prefill 512: {:?} = {:.0} tok/s",
            t.elapsed(),
            512.0 / t.elapsed().as_secs_f64()
        );
    }
    s.reset();
    s.prefill(&prompt[..16])?;
    let mut times = vec![];
    for i in 0..300 {
        let t = Instant::now();
        s.decode(i)?;
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "decode median {:.2} ms  min {:.2} traffic {:?}",
        times[150],
        times[0],
        engine.last_traffic()
    );
    println!("{:?}", engine.memory());
    println!("{:?}", device::ProcessMemory::now()?);
    Ok(())
}
