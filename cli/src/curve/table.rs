//! The report as text.

use super::measure::CurveReport;
use std::fmt::Write;

/// A table of everything.
pub fn text(report: &CurveReport) -> String {
    let mut out = String::new();
    let gb = |bytes: u64| bytes as f64 / 1e9;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{} on {}: {:.2} GB of weights, floor {:.1} MiB, context {}",
        report.model,
        report.device,
        gb(report.total_weight_bytes),
        report.floor_bytes as f64 / (1 << 20) as f64,
        report.context
    );
    let _ = writeln!(
        out,
        "link {:.1} GB/s, memory {:.0} GB/s, compile {:.2} s",
        report.link_rate / 1e9,
        report.memory_rate / 1e9,
        report.compile_seconds
    );
    let _ = writeln!(
        out,
        "predicting from a link of {:.2} GB/s, {:.2} ms with all weights there, {:.2} ms with some \
         streaming, contention {:.2}; calibrated in {:.2} s",
        report.costs.link / 1e9,
        report.costs.settled * 1e3,
        report.costs.streaming * 1e3,
        report.costs.contention,
        report.calibrate_seconds
    );
    let _ = writeln!(
        out,
        "\n{:>10} {:>11} {:>11} {:>12} {:>9} {:>17} {:>9} {:>6} {:>9} {:>6} {:>9} {:>10}",
        "budget",
        "applied GB",
        "resident GB",
        "streamed GB",
        "ms/token",
        "fastest..slowest",
        "predicted",
        "ratio",
        "floor ms",
        "ratio",
        "pool GB",
        "device GB"
    );
    for p in &report.budgets {
        let device = p
            .device_bytes
            .map_or("-".into(), |b| format!("{:.3}", gb(b)));
        let _ = writeln!(
            out,
            "{:>10} {:>11.3} {:>11.3} {:>12.3} {:>9.2} {:>17} {:>9.2} {:>6.3} {:>9.2} {:>6.3} {:>9.3} {:>10}",
            p.requested,
            gb(p.applied_bytes),
            gb(p.resident_bytes),
            gb(p.streamed_bytes),
            p.median * 1e3,
            format!("{:.2}..{:.2}", p.fastest * 1e3, p.slowest * 1e3),
            p.predicted * 1e3,
            p.measured_over_predicted,
            p.floor * 1e3,
            p.median / p.floor,
            gb(p.pool_bytes),
            device
        );
    }
    for p in &report.prefill {
        let _ = writeln!(
            out,
            "prefill {:>5} tokens: {:.2} ms, {:.0} TFLOP/s in layers' products",
            p.tokens,
            p.seconds * 1e3,
            p.flops / 1e12
        );
    }
    for s in &report.switches {
        let _ = writeln!(
            out,
            "budget {} -> {}: set in {:.2} ms, next token {:.2} ms ({:.3} GB loaded), then {:.2} ms",
            s.from,
            s.to,
            s.set_seconds * 1e3,
            s.next_token * 1e3,
            gb(s.loaded_bytes),
            s.settled_token * 1e3
        );
    }
    footer(&mut out, report);
    if let Some(packed) = &report.packed {
        let _ = writeln!(
            out,
            "\nwith packed weights, whose outputs are the same bits:\n"
        );
        out.push_str(&text(packed));
    }
    out
}

fn footer(out: &mut String, report: &CurveReport) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    // Writing to a string cannot fail.
    let each = report.budgets.iter().filter_map(|p| {
        let peak = p.anonymous_peak_bytes?;
        Some(format!("{:.0} MB at {}", mb(peak), p.requested))
    });
    let _ = writeln!(
        out,
        "anonymous host memory at most {:.0} MB, {:.0} MB above what it was with the device open: {}",
        mb(report.anonymous_peak_bytes),
        mb(report.anonymous_added_peak_bytes),
        each.collect::<Vec<_>>().join(", ")
    );
    let starts = &report.starts;
    let _ = writeln!(
        out,
        "a second engine: compiled in {:.1} ms, loaded from a file of {:.2} MB in {:.1} ms, {:.1} times as \
         fast; its kernels were on the device for both",
        starts.compile_seconds * 1e3,
        mb(starts.saved_bytes),
        starts.load_seconds * 1e3,
        starts.compile_seconds / starts.load_seconds
    );
    let _ = writeln!(out, "outputs are the same bits at every budget");
}
