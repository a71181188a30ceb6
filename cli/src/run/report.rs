//! What a run took, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::answer::{Answer, Finish};
use super::decode::Facts;

/// The JSON object of `--json`. Bytes, seconds, tokens per second; `null` is not known.
#[derive(Debug, Serialize)]
#[allow(
    missing_docs,
    reason = "the names say it, and are the documented interface"
)]
pub struct Report {
    pub prompt_tokens: usize,
    pub generated_tokens: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    pub device: String,
    pub dtype: &'static str,
    pub weight_bytes_by_type: BTreeMap<&'static str, u64>,
    pub budget_requested: String,
    pub budget_applied: u64,
    pub budget_floor: u64,
    pub total_weight_bytes: u64,
    pub resident_bytes: u64,
    /// Of these, the bytes of weights that are held packed.
    pub packed_bytes: u64,
    pub ring_bytes: u64,
    pub streamed_bytes_per_token: u64,
    pub activation_bytes: u64,
    pub state_bytes: u64,
    pub device_peak_bytes: u64,
    pub host_anon_peak_bytes: Option<u64>,
    pub host_rss_peak_bytes: Option<u64>,
    pub prefill_tokens_per_second: f64,
    pub decode_tokens_per_second: Option<f64>,
    pub time_to_first_token_seconds: f64,
    pub compile_seconds: f64,
}

/// Peaks of the process's own memory and of all that was resident.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostPeaks {
    pub anonymous: Option<u64>,
    pub resident: Option<u64>,
}

impl Report {
    /// Puts together what each part knows.
    pub fn new(prompt_tokens: usize, answer: Answer, facts: Facts, host: HostPeaks) -> Self {
        let later_tokens = answer.tokens.len().saturating_sub(1);
        Report {
            prompt_tokens,
            text: answer.text,
            finish: answer.finish,
            device: facts.device,
            dtype: facts.dtype,
            weight_bytes_by_type: facts.weight_types.into_iter().collect(),
            budget_requested: facts.budget_requested,
            budget_applied: facts.budget_applied,
            budget_floor: facts.budget_floor,
            total_weight_bytes: facts.total_weight_bytes,
            resident_bytes: facts.resident_bytes,
            packed_bytes: facts.packed_bytes,
            ring_bytes: facts.ring_bytes,
            activation_bytes: facts.activation_bytes,
            state_bytes: facts.state_bytes,
            streamed_bytes_per_token: facts.streamed_bytes_per_token,
            device_peak_bytes: facts.device_peak_bytes,
            host_anon_peak_bytes: host.anonymous,
            host_rss_peak_bytes: host.resident,
            prefill_tokens_per_second: prompt_tokens as f64 / answer.prefill.as_secs_f64(),
            // One token is the prompt's; a rate needs a second one.
            decode_tokens_per_second: (later_tokens > 0)
                .then(|| later_tokens as f64 / answer.decode.as_secs_f64()),
            time_to_first_token_seconds: answer.first_token.as_secs_f64(),
            compile_seconds: facts.compile_seconds,
            generated_tokens: answer.tokens,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |bytes: Option<u64>| {
            bytes.map_or("not known".to_string(), |b| BinaryBytes(b).to_string())
        };
        let rate = |rate: Option<f64>| rate.map_or("-".to_string(), |r| format!("{r:.1} tokens/s"));
        let mut line = |name: &str, value: String| writeln!(f, "{name:<18}{value}");
        line("device", format!("{}, {}", self.device, self.dtype))?;
        line(
            "weight budget",
            format!(
                "asked {}, applied {}, floor {}",
                self.budget_requested,
                BinaryBytes(self.budget_applied),
                BinaryBytes(self.budget_floor)
            ),
        )?;
        line(
            "weights",
            format!(
                "{} in all, {} resident{}, {} streamed per token",
                BinaryBytes(self.total_weight_bytes),
                BinaryBytes(self.resident_bytes),
                match self.packed_bytes {
                    0 => String::new(),
                    bytes => format!(" ({} of it packed)", BinaryBytes(bytes)),
                },
                BinaryBytes(self.streamed_bytes_per_token)
            ),
        )?;
        if self.weight_bytes_by_type.len() > 1 {
            let mut types: Vec<(&&str, &u64)> = self.weight_bytes_by_type.iter().collect();
            types.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
            let types = types
                .iter()
                .map(|(name, bytes)| format!("{} {name}", BinaryBytes(**bytes)));
            line("types", types.collect::<Vec<_>>().join(", "))?;
        }
        line(
            "device memory",
            format!("{} at most", BinaryBytes(self.device_peak_bytes)),
        )?;
        line(
            "host memory",
            format!(
                "{} anonymous, {} resident at most",
                known(self.host_anon_peak_bytes),
                known(self.host_rss_peak_bytes)
            ),
        )?;
        line(
            "prompt",
            format!(
                "{} tokens, {}",
                self.prompt_tokens,
                rate(Some(self.prefill_tokens_per_second))
            ),
        )?;
        line(
            "decode",
            format!(
                "{} tokens, {}",
                self.generated_tokens.len(),
                rate(self.decode_tokens_per_second)
            ),
        )?;
        line(
            "first token",
            format!("{:.3} s", self.time_to_first_token_seconds),
        )?;
        line("compile", format!("{:.2} s", self.compile_seconds))
    }
}
