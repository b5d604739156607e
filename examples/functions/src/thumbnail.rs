//! `thumbnail`: makes a JPEG or PNG fit a box of 128 x 128 pixels, and gives it back in the same format.
//!
//! Always: the shape is kept, the camera's orientation is applied, metadata is dropped, nothing is enlarged.
//! Never: more than [`DECODED_SIZE_MAX`] of memory for the decoded picture, however small the file that claims it.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use quickfire_client::serve::{Call, FunctionError, Reply};

/// Neither side of a thumbnail is longer.
pub const BOX_SIDE: u32 = 128;
/// Neither side of a picture may be longer: twice that of the largest common cameras.
pub const SIDE_MAX: u32 = 16_384;
/// 128 MiB decoded: 44 megapixels of 3 bytes.
pub const DECODED_SIZE_MAX: u64 = 128 << 20;
/// Of 100: where artefacts stop to be visible at this size.
const JPEG_QUALITY: u8 = 85;

/// Why there is no thumbnail. In every case the caller's bytes are the reason, except for the last.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailRefused {
    /// Neither JPEG nor PNG.
    #[error("not a JPEG or PNG picture")]
    UnknownFormat,
    /// The header claims more than we are willing to decode.
    #[error("the picture is too large: at most {SIDE_MAX} pixels a side and {} MiB decoded", DECODED_SIZE_MAX >> 20)]
    TooLarge,
    /// The picture is cut off or broken.
    #[error("the picture cannot be decoded: {0}")]
    Broken(ImageError),
    /// Our own encoder failed.
    #[error("the thumbnail cannot be encoded: {0}")]
    NotEncoded(ImageError),
}

/// The function.
pub fn handle(call: &Call<'_>, reply: &mut Reply) -> Result<(), FunctionError> {
    reply.write(&thumbnail(call.payload())?);
    Ok(())
}

/// A thumbnail of `picture`, in its own format.
pub fn thumbnail(picture: &[u8]) -> Result<Vec<u8>, ThumbnailRefused> {
    let format = match image::guess_format(picture) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
        _ => return Err(ThumbnailRefused::UnknownFormat),
    };
    let whole = decode(picture, format)?;
    let fits = whole.width() <= BOX_SIDE && whole.height() <= BOX_SIDE;
    let small = if fits { whole } else { whole.thumbnail(BOX_SIDE, BOX_SIDE) };
    encode(&small, format).map_err(ThumbnailRefused::NotEncoded)
}

fn decode(picture: &[u8], format: ImageFormat) -> Result<DynamicImage, ThumbnailRefused> {
    let broken = |error| match error {
        ImageError::Limits(_) => ThumbnailRefused::TooLarge,
        error => ThumbnailRefused::Broken(error),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODED_SIZE_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    reader.limits(limits);

    let mut decoder = reader.into_decoder().map_err(broken)?;
    if decoder.total_bytes() > DECODED_SIZE_MAX {
        return Err(ThumbnailRefused::TooLarge);
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut whole = DynamicImage::from_decoder(decoder).map_err(broken)?;
    whole.apply_orientation(orientation);
    Ok(whole)
}

fn encode(small: &DynamicImage, format: ImageFormat) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::with_capacity(16 << 10); // most thumbnails of this size are smaller
    match format {
        ImageFormat::Jpeg => {
            small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        }
        _ => small.write_with_encoder(PngEncoder::new(&mut bytes))?,
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgba, RgbaImage};

    const JPEG: &[u8] = include_bytes!("../samples/picture.jpg");
    const PNG: &[u8] = include_bytes!("../samples/picture.png");

    fn check(picture: &[u8], format: ImageFormat, expected: (u32, u32)) -> DynamicImage {
        let small = thumbnail(picture).expect("a thumbnail");
        assert_eq!(image::guess_format(&small).unwrap(), format, "the format is kept");
        let small = image::load_from_memory(&small).expect("our own picture decodes");
        assert_eq!((small.width(), small.height()), expected);
        small
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbaImage::from_pixel(width, height, Rgba([200, 10, 10, 128]));
        encode(&picture.into(), ImageFormat::Png).unwrap()
    }

    #[test]
    fn the_samples_fit_the_box_and_keep_shape_and_format() {
        check(JPEG, ImageFormat::Jpeg, (128, 96));
        check(PNG, ImageFormat::Png, (128, 96));
    }

    #[test]
    fn a_small_picture_is_not_enlarged_and_a_thin_one_keeps_a_pixel() {
        check(&png(5, 7), ImageFormat::Png, (5, 7));
        check(&png(4_000, 2), ImageFormat::Png, (128, 1));
    }

    #[test]
    fn transparency_survives() {
        let small = check(&png(300, 300), ImageFormat::Png, (128, 128));
        assert_eq!(small.to_rgba8().get_pixel(64, 64), &Rgba([200, 10, 10, 128]));
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused() {
        for bytes in [&b""[..], b"hello", b"GIF89a..........", &[0xFF; 100]] {
            assert!(matches!(thumbnail(bytes), Err(ThumbnailRefused::UnknownFormat)), "{bytes:?}");
        }
    }

    #[test]
    fn a_broken_png_is_refused_at_any_cut() {
        for size in [9, 20, 33, PNG.len() / 2] {
            assert!(matches!(thumbnail(&PNG[..size]), Err(ThumbnailRefused::Broken(_))), "cut at {size}");
        }
    }

    #[test]
    fn a_small_file_that_claims_a_huge_picture_is_refused_before_it_is_decoded() {
        // Given a PNG whose header says 16,000 x 16,000: 1 GiB of pixels
        let mut bytes = png(1, 1);
        bytes[16..20].copy_from_slice(&16_000_u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16_000_u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(thumbnail(&bytes), Err(ThumbnailRefused::TooLarge)));

        // And one side alone
        bytes[16..20].copy_from_slice(&(SIDE_MAX + 1).to_be_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(thumbnail(&bytes), Err(ThumbnailRefused::TooLarge)));
    }

    #[test]
    fn a_jpeg_cut_anywhere_gives_a_thumbnail_or_a_refusal_and_never_a_panic() {
        for size in (2..JPEG.len()).step_by(JPEG.len() / 50) {
            let _ = thumbnail(&JPEG[..size]);
        }
    }

    /// PNG's checksum, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
        };
        !bytes.iter().fold(u32::MAX, step)
    }
}
