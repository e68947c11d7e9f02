//! Previews and channels of an image file.

use std::path::PathBuf;

use darkroom_comfy::wire::Conversion;

use crate::pixels::{
    decode,
    encode::{self, Bytes8},
};

/// Why a file cannot be shown as an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no image we read.
    #[error(transparent)]
    Decode(#[from] decode::Error),
    /// The result cannot be written.
    #[error(transparent)]
    Encode(#[from] encode::Error),
    /// It went away.
    #[error("cannot read the file: {0}")]
    Read(#[from] std::io::Error),
    /// The conversion died.
    #[error("cannot convert the file")]
    Lost,
}

/// Content type and bytes of the converted file, made off the async runtime.
pub async fn convert(path: PathBuf, conversion: Conversion) -> Result<(&'static str, Vec<u8>), Error> {
    let work = move || {
        let frame = decode::frames(&std::fs::read(path)?)?.swap_remove(0);
        Ok(match conversion {
            Conversion::Webp { opaque } => ("image/webp", encode::webp(&bytes(frame, opaque))?),
            Conversion::Jpeg(quality) => ("image/jpeg", encode::jpeg(&bytes(frame, true), quality)?),
            Conversion::Rgb => ("image/png", encode::png(&bytes(frame, true), 6, &[])?),
            Conversion::Alpha => {
                let pixels = frame
                    .rgba_alpha()
                    .into_iter()
                    .flat_map(|alpha| [0, 0, 0, alpha])
                    .collect();
                let (width, height) = (frame.width as u32, frame.height as u32);
                (
                    "image/png",
                    encode::png(
                        &Bytes8 {
                            width,
                            height,
                            channels: 4,
                            pixels,
                        },
                        6,
                        &[],
                    )?,
                )
            }
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Lost))
}

fn bytes(frame: decode::Frame, opaque: bool) -> Bytes8 {
    let (width, height) = (frame.width as u32, frame.height as u32);
    match frame.alpha {
        Some(alpha) if !opaque => {
            let pixels = frame
                .rgb
                .chunks_exact(3)
                .zip(alpha)
                .flat_map(|(p, a)| [p[0], p[1], p[2], a])
                .collect();
            Bytes8 {
                width,
                height,
                channels: 4,
                pixels,
            }
        }
        _ => Bytes8 {
            width,
            height,
            channels: 3,
            pixels: frame.rgb,
        },
    }
}
