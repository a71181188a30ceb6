//! Every instruction set against sums of integers, bit for bit.

use super::rows::{LEAST, Layout, MOST, Quantise};
use super::tile::{CodePanel, Stretch};
use crate::host::simd::{Isa, has_words, run_on, run_words};
use crate::host::tile::PANEL;

fn row(isa: Isa, layout: Layout, x: &[f32]) -> Vec<f32> {
    let mut row = vec![7f32; layout.pitch()];
    let row_of = Quantise {
        layout,
        x,
        row: &mut row,
    };
    run_on(isa, row_of);
    row
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_row_is_its_numbers_times_scales_and_their_sums() {
    for sub in [16, 32] {
        let layout = Layout { k: 96, sub };
        let x: Vec<f32> = (0..96)
            .map(|i| match i / sub {
                0 => 0.0,
                1 => (i as f32).sin() * MOST / 2.0,
                2 => (i as f32).cos() * 4.0 * LEAST,
                _ => (i as f32 * 1.7).sin(),
            })
            .collect();
        let first = row(Isa::best(), layout, &x);
        for isa in Isa::available() {
            let row = row(isa, layout, &x);
            assert_eq!(bits(&row), bits(&first), "{isa:?}");
            assert!(!layout.is_refused(&row));
            let words: &[i16] = bytemuck::cast_slice(&row[..48]);
            for (b, x) in x.chunks(sub).enumerate() {
                let words = &words[b * sub..][..sub];
                let scale = row[layout.scales() + b];
                let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
                for (x, word) in x.iter().zip(words) {
                    let off = (f64::from(*x) - f64::from(*word) * f64::from(scale)).abs();
                    assert!(
                        off <= f64::from(largest) / 65536.0 * 1.01,
                        "{isa:?} {b}: {off:e}"
                    );
                }
                let sum: i32 = words.iter().map(|w| i32::from(*w)).sum();
                assert_eq!(row[layout.sums() + b], sum as f32 * scale);
            }
        }
    }
}

#[test]
fn rows_with_values_out_of_range_are_refused() {
    let layout = Layout { k: 64, sub: 32 };
    for isa in Isa::available() {
        for bad in [
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            2.0 * MOST,
            -LEAST / 2.0,
            1e-45,
        ] {
            let mut x = vec![0f32; 64];
            x[40] = bad;
            let row = row(isa, layout, &x);
            assert!(layout.is_refused(&row), "{isa:?} {bad:e}");
        }
        for good in [MOST, -MOST, LEAST, 0.0, -0.0] {
            let row = row(isa, layout, &[good; 64]);
            assert!(!layout.is_refused(&row), "{isa:?} {good:e}");
        }
    }
}

/// A panel with sets of this CPU: all but [`Isa::Portable`] fuse, so they agree.
#[test]
fn every_instruction_set_sums_the_same() {
    let (k, at, len, m) = (192, 64, 96, 7);
    for (sub, has_least) in [(16, false), (16, true), (32, false), (32, true)] {
        let layout = Layout { k, sub };
        let mut a = Vec::new();
        for i in 0..m {
            let x: Vec<f32> = (0..k).map(|t| ((i * k + t) as f32).sin()).collect();
            a.extend(row(Isa::best(), layout, &x));
        }
        let words: Vec<i16> = (0..len * PANEL)
            .map(|i| (i * 31 % 256) as i16 - 128)
            .collect();
        let scales: Vec<f32> = (0..len / sub * PANEL).map(|i| (i as f32).cos()).collect();
        let least: Vec<f32> = (0..len / sub * PANEL).map(|i| (i as f32).sin()).collect();
        let b = Stretch {
            words: bytemuck::cast_slice(&words),
            scales: &scales,
            least: has_least.then_some(&least),
        };
        let mut sums = vec![0.5f64; m * PANEL];
        for (at_sum, sum) in sums.iter_mut().enumerate() {
            let (row, j) = (&a[at_sum / PANEL * layout.pitch()..], at_sum % PANEL);
            let x: &[i16] = bytemuck::cast_slice(&row[..k / 2]);
            for t in 0..len {
                let code = words[(t / 2 * PANEL + j) * 2 + t % 2];
                let place = t / sub * PANEL + j;
                let least = if has_least { least[place] } else { 0.0 };
                let w = f64::from(scales[place]) * f64::from(code) + f64::from(least);
                let scale = row[layout.scales() + (at + t) / sub];
                *sum += w * f64::from(scale) * f64::from(x[at + t]);
            }
        }
        let mut first = None;
        let sets = Isa::available().into_iter().map(|isa| (isa, false));
        for (isa, at_once) in sets.chain(has_words().then_some((Isa::best(), true))) {
            let mut c = vec![0.5f32; m * PANEL];
            let panel = CodePanel {
                a: &a,
                layout,
                m,
                at,
                len,
                b,
                c: &mut c,
                add: true,
                at_once,
            };
            match at_once {
                true => run_words(panel),
                false => run_on(isa, panel),
            }
            for (c, sum) in c.iter().zip(&sums) {
                let off = (f64::from(*c) - sum).abs();
                assert!(off <= 1e-3, "{isa:?} {at_once} {sub}: {c}, not {sum}");
            }
            if isa != Isa::Portable {
                let same = *first.get_or_insert(bits(&c)) == bits(&c);
                assert!(same, "{isa:?} {at_once} {sub} {has_least}");
            }
        }
    }
}
