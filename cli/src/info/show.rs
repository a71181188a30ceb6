//! What is known, for people.

use std::fmt;

use indicatif::BinaryBytes;

use super::Info;
use super::fits::Fit;

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<14}{value}");
        line("model", self.model.clone())?;
        line(
            "family",
            self.family.clone().unwrap_or_else(|| "not named".into()),
        )?;
        if let Some(s) = &self.shape {
            line(
                "shape",
                format!(
                    "{} layers of {} ({} in between), {} heads of {} over {} of keys and values",
                    s.layers, s.hidden, s.intermediate, s.heads, s.head_dim, s.kv_heads
                ),
            )?;
            line("vocabulary", format!("{} tokens", s.vocabulary))?;
            line("positions", s.positions.to_string())?;
        }
        line(
            "weights",
            format!(
                "{} in {} tensors",
                BinaryBytes(self.weight_bytes),
                self.tensors
            ),
        )?;
        for t in &self.types {
            line(
                "",
                format!(
                    "{} of {} in {} tensors",
                    BinaryBytes(t.bytes),
                    t.dtype,
                    t.tensors
                ),
            )?;
        }
        if let Some(context) = self.context {
            line("context", format!("{context} tokens, for what follows"))?;
        }
        for fit in &self.devices {
            line(&fit.device, about(fit))?;
        }
        match &self.unsupported {
            Some(why) => line("cannot run", why.clone()),
            None => Ok(()),
        }
    }
}

fn about(fit: &Fit) -> String {
    let size = |bytes: Option<u64>| bytes.map_or("?".to_string(), |b| BinaryBytes(b).to_string());
    let memory = format!(
        "{}, {} free of {}",
        fit.name,
        size(fit.free_memory_bytes),
        BinaryBytes(fit.total_memory_bytes)
    );
    if let Some(why) = &fit.fails {
        return format!("{memory}: {why}");
    }
    let room = match (fit.whole, fit.automatic_bytes, fit.full_bytes) {
        (Some(true), _, _) => "all weights fit".to_string(),
        (_, Some(room), Some(full)) if full > 0 => {
            format!(
                "--budget {room} fits, {:.0} % of the weights",
                room as f64 / full as f64 * 100.0
            )
        }
        _ => "what fits is not known".to_string(),
    };
    format!(
        "{memory}: {room}; at least {}, and {} for calls, {} for a session",
        size(fit.floor_bytes),
        size(fit.activation_bytes),
        size(fit.state_bytes)
    )
}
