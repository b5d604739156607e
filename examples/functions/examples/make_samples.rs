//! Draws `samples/picture.png` and `samples/picture.jpg`: a sun over water, made of nothing but arithmetic.
//!
//!     cargo run -p example-functions --example make_samples

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageError, Rgb, RgbImage};

fn main() -> Result<(), ImageError> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let picture = RgbImage::from_fn(640, 480, pixel);
    picture.save(samples.join("picture.png"))?;
    let jpeg = std::fs::File::create(samples.join("picture.jpg"))?;
    picture.write_with_encoder(JpegEncoder::new_with_quality(jpeg, 85))
}

fn pixel(x: u32, y: u32) -> Rgb<u8> {
    let (x, y) = (x as f32, y as f32);
    let horizon = 300.0;
    let is_sun = (x - 440.0).hypot(y - 210.0) < 70.0;
    if is_sun && y < horizon {
        Rgb([255, 214, 120])
    } else if y < horizon {
        let height = y / horizon;
        Rgb([(70.0 + 170.0 * height) as u8, (90.0 + 80.0 * height) as u8, (150.0 - 40.0 * height) as u8])
    } else {
        let depth = (y - horizon) / 180.0;
        let wave = ((y * 0.35 + (x * 0.02).sin() * 6.0).sin() * 0.5 + 0.5) * (1.0 - depth);
        let glitter = if (x - 440.0).abs() < 40.0 + 60.0 * depth { wave } else { wave * 0.3 };
        Rgb([(20.0 + 200.0 * glitter) as u8, (50.0 + 120.0 * glitter) as u8, (90.0 + 40.0 * glitter) as u8])
    }
}
