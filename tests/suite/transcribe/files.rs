//! The readers of files: what they take, what they refuse, and that no file ends a process.

use super::ctranslate2::{self, read, weights};
use super::{mel, wav};
use safetensors::Dtype;
use std::f64::consts::PI;
use std::fs;

/// Writes a file of CTranslate2's kind.
#[derive(Default)]
struct File(Vec<u8>);

impl File {
    fn number(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let length = u16::try_from(text.len() + 1).expect("a short text");
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.bytes().chain([0]));
        self
    }

    fn variable(&mut self, name: &str, shape: &[u32], dtype: u8, bytes: &[u8]) -> &mut Self {
        self.text(name);
        self.0.push(shape.len() as u8);
        for size in shape {
            self.number(*size);
        }
        self.0.push(dtype);
        self.number(bytes.len() as u32);
        self.0.extend(bytes);
        self
    }
}

const SIZE: u32 = 4;
const WORDS: u32 = 6;

/// All variables of a whisper of one layer, as f32: name and shape.
fn variables() -> Vec<(String, Vec<u32>)> {
    let mut all: Vec<(String, Vec<u32>)> = Vec::new();
    let mut add = |name: String, shape: &[u32]| all.push((name, shape.to_vec()));
    for half in ["encoder", "decoder"] {
        let layer = format!("{half}/layer_0");
        let mut product = |name: &str, rows: u32, columns: u32| {
            add(format!("{layer}/{name}/weight"), &[rows, columns]);
            add(format!("{layer}/{name}/bias"), &[rows]);
        };
        product("self_attention/linear_0", 3 * SIZE, SIZE);
        product("self_attention/linear_1", SIZE, SIZE);
        product("ffn/linear_0", 2 * SIZE, SIZE);
        product("ffn/linear_1", SIZE, 2 * SIZE);
        if half == "decoder" {
            product("attention/linear_0", SIZE, SIZE);
            product("attention/linear_1", 2 * SIZE, SIZE);
            product("attention/linear_2", SIZE, SIZE);
            add(format!("{layer}/attention/layer_norm/gamma"), &[SIZE]);
            add(format!("{layer}/attention/layer_norm/beta"), &[SIZE]);
        }
        for norm in [
            format!("{layer}/self_attention/layer_norm"),
            format!("{layer}/ffn/layer_norm"),
            format!("{half}/layer_norm"),
        ] {
            add(format!("{norm}/gamma"), &[SIZE]);
            add(format!("{norm}/beta"), &[SIZE]);
        }
        add(format!("{half}/position_encodings/encodings"), &[5, SIZE]);
    }
    add("encoder/conv1/weight".into(), &[SIZE, 2, 3]);
    add("encoder/conv1/bias".into(), &[SIZE]);
    add("encoder/conv2/weight".into(), &[SIZE, SIZE, 3]);
    add("encoder/conv2/bias".into(), &[SIZE]);
    add("decoder/embeddings/weight".into(), &[WORDS, SIZE]);
    all
}

/// A whole file, with one setting as it is given.
fn file(setting: (&str, u8)) -> Vec<u8> {
    let (named, all) = (
        [
            ("activation", 3),
            ("alibi", 0),
            ("pre_norm", 1),
            ("scale_embeddings", 0),
            ("start_from_zero_embedding", 0),
        ],
        variables(),
    );
    let mut file = File::default();
    file.number(6).text("WhisperSpec").number(3);
    file.number((named.len() + 2 + all.len()) as u32);
    for (name, value) in named {
        let value = if name == setting.0 { setting.1 } else { value };
        file.variable(&format!("decoder/{name}"), &[], 1, &[value]);
    }
    for half in ["encoder", "decoder"] {
        file.variable(&format!("{half}/num_heads"), &[], 2, &[2, 0]);
    }
    for (at, (name, shape)) in all.iter().enumerate() {
        let count: u32 = shape.iter().product();
        let keys = name.ends_with("self_attention/linear_0/bias");
        let cross = name.ends_with("/attention/linear_1/bias") && name.starts_with("decoder");
        let value = |i: u32| match (keys, cross) {
            (true, _) if (SIZE..2 * SIZE).contains(&i) => 0.0,
            (_, true) if i < SIZE => 0.0,
            _ => (at * 1000) as f32 + i as f32,
        };
        let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        file.variable(name, shape, 0, &bytes);
    }
    file.number(1)
        .text("decoder/projection/weight")
        .text("decoder/embeddings/weight");
    file.0
}

#[test]
fn a_file_of_ctranslate2_becomes_weights_under_the_names_that_others_have() {
    let file = file(("", 0));
    let all = read(&file).expect("it is whole");
    let (named, config) = weights(&all).expect("it is whisper");
    assert_eq!(
        (config.vocab_size, config.d_model, config.num_mel_bins),
        (6, 4, 2)
    );
    assert_eq!((config.encoder_layers, config.decoder_layers), (1, 1));
    assert_eq!(
        (config.decoder_attention_heads, config.decoder_ffn_dim),
        (2, 8)
    );
    let joined = all["decoder/layer_0/self_attention/linear_0/weight"].bytes;
    let part = joined.len() / 3;
    for (i, name) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
        let view = &named[&format!("model.decoder.layers.0.self_attn.{name}.weight")];
        assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &[4, 4][..]));
        assert!(view.data() == &joined[i * part..(i + 1) * part], "{name}");
    }
    assert!(named.contains_key("model.decoder.layers.0.encoder_attn.v_proj.bias"));
    assert!(!named.keys().any(|name| name.ends_with("k_proj.bias")));
}

#[test]
fn what_is_computed_otherwise_is_refused_by_name() {
    for (name, value) in [("activation", 0), ("pre_norm", 0), ("scale_embeddings", 1)] {
        let file = file((name, value));
        let error = weights(&read(&file).expect("it is whole")).expect_err("not whisper");
        assert!(error.to_string().contains(name), "{error}");
    }
    let whole = file(("", 0));
    let mut old = whole.clone();
    old[0] = 3;
    let error = read(&old).expect_err("too old").to_string();
    assert!(error.contains("version 3"), "{error}");
    let error = read(&[&whole[..], &[0]].concat()).expect_err("too long");
    assert!(error.to_string().contains("1 bytes after"), "{error}");
    let mut eighth = File::default();
    eighth.number(6).text("WhisperSpec").number(3).number(1);
    eighth.variable("w", &[u32::MAX, u32::MAX, u32::MAX], 0, &[1, 2]);
    let error = read(&eighth.0).expect_err("too large").to_string();
    assert!(error.contains("in 2 bytes"), "{error}");
}

/// A generator that is the same each time.
fn dice(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn no_broken_file_ends_the_process() {
    let whole = file(("", 0));
    let refused = |file: &[u8]| match read(file) {
        Ok(all) => weights(&all).is_err(),
        Err(_) => true,
    };
    for end in (0..whole.len()).step_by(3) {
        assert!(refused(&whole[..end]), "cut at {end}");
    }
    let mut state = 1;
    let mut errors = 0;
    for _ in 0..4000 {
        let mut broken = whole.clone();
        for _ in 0..=dice(&mut state) % 3 {
            let at = dice(&mut state) % broken.len();
            broken[at] = dice(&mut state) as u8;
        }
        errors += usize::from(refused(&broken));
    }
    // Most bytes are values of weights, of which none is wrong.
    assert!(errors > 200, "{errors}");
}

#[test]
fn parts_are_joined_and_converted() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name);
    let whole = file(("", 0));
    let (a, b) = whole.split_at(whole.len() / 2);
    fs::write(place("a"), a).expect("written");
    fs::write(place("b"), b).expect("written");
    let (weights, config) = (place("model.safetensors"), place("config.json"));
    ctranslate2::convert(&[place("a"), place("b")], &weights, &config).expect("it is read");
    let all = candle_core::safetensors::load(&weights, &candle_core::Device::Cpu).expect("whole");
    assert_eq!(all["model.decoder.embed_tokens.weight"].dims(), [6, 4]);
    let error = ctranslate2::convert(&[place("b"), place("a")], &weights, &config);
    assert!(error.is_err());
}

/// A WAV file.
fn wave(kind: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEjunk\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
    let frame = channels * bits / 8;
    for word in [kind, channels] {
        file.extend(word.to_le_bytes());
    }
    for number in [rate, rate * u32::from(frame)] {
        file.extend(number.to_le_bytes());
    }
    for word in [frame, bits] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn heard(file: &[u8]) -> anyhow::Result<Vec<f32>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("sound.wav");
    fs::write(&path, file)?;
    wav::read(&path, mel::RATE)
}

#[test]
fn samples_of_every_size_are_from_minus_one_to_one() {
    let cases: [(u16, u16, Vec<u8>); 6] = [
        (1, 8, vec![0, 128, 192]),
        (
            1,
            16,
            [i16::MIN, 0, 1 << 14]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
        (1, 24, vec![0, 0, 128, 0, 0, 0, 0, 0, 64]),
        (
            1,
            32,
            [i32::MIN, 0, 1 << 30]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
        (
            3,
            32,
            [-1f32, 0.0, 0.5]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
        (
            3,
            64,
            [-1f64, 0.0, 0.5]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        ),
    ];
    for (kind, bits, data) in cases {
        let one = heard(&wave(kind, 1, 16_000, bits, &data)).expect("a sound");
        assert_eq!(one, [-1.0, 0.0, 0.5], "{bits} bits of kind {kind}");
        let mean = heard(&wave(kind, 3, 16_000, bits, &data)).expect("a sound");
        assert_eq!(mean, [-0.5 / 3.0], "{bits} bits of kind {kind}");
    }
    let nan = heard(&wave(3, 1, 16_000, 32, &f32::NAN.to_le_bytes()));
    assert!(nan.is_err());
    for (kind, channels, rate, bits) in [
        (1, 1, 16_000, 12),
        (1, 0, 16_000, 16),
        (2, 1, 16_000, 16),
        (1, 1, 10, 16),
    ] {
        assert!(heard(&wave(kind, channels, rate, bits, &[0; 64])).is_err());
    }
}

#[test]
fn no_broken_sound_ends_the_process() {
    let whole = wave(1, 2, 44_100, 16, &[7; 400]);
    for end in 0..44 {
        assert!(heard(&whole[..end]).is_err(), "cut at {end}");
    }
    let mut state = 2;
    for _ in 0..300 {
        let mut broken = whole.clone();
        let at = dice(&mut state) % 56;
        broken[at] = dice(&mut state) as u8;
        let _either = heard(&broken);
    }
}

#[test]
fn a_tone_is_the_same_tone_at_another_rate() {
    for rate in [8_000u32, 11_025, 22_050, 44_100, 48_000, 96_000] {
        let tone = |hertz: f64, i: usize, rate: f64| (2.0 * PI * hertz * i as f64 / rate).sin();
        let file = |hertz: f64| {
            let value = |i: usize| (tone(hertz, i, f64::from(rate)) as f32 / 2.0).to_le_bytes();
            let data: Vec<u8> = (0..rate as usize / 4).flat_map(value).collect();
            wave(3, 1, rate, 32, &data)
        };
        let own = heard(&file(1000.0)).expect("a sound");
        assert!(
            own.len().abs_diff(4000) <= 1,
            "{rate}: {} samples",
            own.len()
        );
        // At its ends a tone is cut off.
        let inner = own.iter().enumerate().take(3800).skip(200);
        let differ = inner.map(|(i, v)| (f64::from(*v) - tone(1000.0, i, 16_000.0) / 2.0).abs());
        let worst = differ.fold(0.0, f64::max);
        assert!(worst < 1e-3, "{rate}: {worst:.1e}");
        if rate > 20_000 {
            // What 16000 samples a second cannot carry is not heard as something else.
            let own = heard(&file(9_500.0)).expect("a sound");
            let left = own[200..3800]
                .iter()
                .fold(0f32, |most, v| most.max(v.abs()));
            assert!(left < 2e-3, "{rate}: {left:.1e}");
        }
    }
}
