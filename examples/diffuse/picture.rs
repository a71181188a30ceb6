//! Pictures as PNG: heights, coloured by height and shaded by a sun in the north west, and colours as they are.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Result;

/// Metres of the highest terrain that the model knows.
const RANGE: f32 = 22.168_64;
/// Below this heights are about linear, above it they are compressed.
const SCALE: f32 = 0.1;
/// Metres between two points.
const SPACING: f32 = 0.1;
/// Pixels for each point, along both sides.
const ZOOM: usize = 4;

/// Colours from the lowest to the highest point.
const COLOURS: [[f32; 3]; 5] = [
    [42.0, 84.0, 96.0],
    [96.0, 138.0, 92.0],
    [186.0, 172.0, 118.0],
    [148.0, 112.0, 88.0],
    [246.0, 244.0, 240.0],
];

/// Metres above the lowest point, of what the model gives from -1 to 1.
pub fn heights(values: &[f32]) -> Vec<f32> {
    let whole = (RANGE / SCALE).asinh();
    let metres = |v: &f32| SCALE * (((v + 1.0) / 2.0).clamp(0.0, 1.0) * whole).sinh();
    let all: Vec<f32> = values.iter().map(metres).collect();
    let lowest = all.iter().copied().fold(f32::INFINITY, f32::min);
    all.iter().map(|h| h - lowest).collect()
}

/// Writes a square of heights as a PNG.
pub fn write(heights: &[f32], side: usize, path: &Path) -> Result<()> {
    let highest = heights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let size = side * ZOOM;
    let mut pixels = Vec::with_capacity(3 * size * size);
    for row in 0..size {
        for column in 0..size {
            let at = |dy: f32, dx: f32| {
                let place = |i: usize, d: f32| (i as f32 + 0.5) / ZOOM as f32 - 0.5 + d;
                between(heights, side, place(row, dy), place(column, dx))
            };
            let slope = |a: f32, b: f32| (b - a) / (2.0 * SPACING);
            let (dx, dy) = (
                slope(at(0.0, -1.0), at(0.0, 1.0)),
                slope(at(-1.0, 0.0), at(1.0, 0.0)),
            );
            // The sun is 45 degrees high.
            let light = (1.0 + 0.7 * (dx + dy)) / (1.0 + dx * dx + dy * dy).sqrt() / 2f32.sqrt();
            let shade = 0.35 + 0.75 * light.clamp(0.0, 1.2);
            let [r, g, b] = colour(at(0.0, 0.0) / highest);
            pixels.extend([r, g, b].map(|c| (c * shade).clamp(0.0, 255.0) as u8));
        }
    }
    png(&pixels, [size, size], path)
}

/// Writes colours from -1 to 1, all of one channel after all of another, as a PNG.
pub fn write_colours(values: &[f32], [width, height]: [usize; 2], path: &Path) -> Result<()> {
    let count = width * height;
    let level = |i: usize| ((values[i] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    let pixels: Vec<u8> = (0..3 * count)
        .map(|i| level(i % 3 * count + i / 3))
        .collect();
    png(&pixels, [width, height], path)
}

fn png(pixels: &[u8], [width, height]: [usize; 2], path: &Path) -> Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(())
}

/// The height at a place between points.
fn between(heights: &[f32], side: usize, y: f32, x: f32) -> f32 {
    let near = |v: f32| {
        let v = v.clamp(0.0, (side - 1) as f32);
        let low = (v as usize).min(side - 2);
        (low, v - low as f32)
    };
    let ((row, down), (column, right)) = (near(y), near(x));
    let point = |r: usize, c: usize| heights[(row + r) * side + column + c];
    let along = |r: usize| point(r, 0) * (1.0 - right) + point(r, 1) * right;
    along(0) * (1.0 - down) + along(1) * down
}

fn colour(height: f32) -> [f32; 3] {
    let at = height.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let low = (at as usize).min(COLOURS.len() - 2);
    let part = at - low as f32;
    std::array::from_fn(|i| COLOURS[low][i] * (1.0 - part) + COLOURS[low + 1][i] * part)
}
