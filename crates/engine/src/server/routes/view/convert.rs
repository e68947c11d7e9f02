//! Previews and channels of an image file.

use std::path::PathBuf;

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

/// What to make of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// WebP, with or without alpha.
    Webp {
        /// Alpha is dropped.
        opaque: bool,
    },
    /// JPEG of this quality.
    Jpeg(u8),
    /// PNG without alpha.
    Rgb,
    /// PNG that is black where the image is, with its alpha.
    Alpha,
}

impl Conversion {
    /// The conversion that `preview=` and `channel=` ask for; `None`: the file as it is.
    pub fn choose(preview: Option<&str>, channel: Option<&str>) -> Option<Conversion> {
        let channel = channel.unwrap_or_default();
        if let Some(preview) = preview {
            let quality = preview
                .rsplit(';')
                .next()
                .and_then(|text| text.parse::<u32>().ok())
                .unwrap_or(90);
            // JPEG has no alpha, so whoever asks for it gets WebP; so does every format we do not know.
            if preview.split(';').next() == Some("jpeg") && !channel.contains('a') {
                return Some(Conversion::Jpeg(quality.clamp(1, 100) as u8));
            }
            return Some(Conversion::Webp {
                opaque: channel == "rgb",
            });
        }
        match channel {
            "rgb" => Some(Conversion::Rgb),
            "a" => Some(Conversion::Alpha),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_forms_are_understood() {
        for (preview, channel, conversion) in [
            (None, None, None),
            (None, Some("rgba"), None),
            (None, Some("zzz"), None),
            (None, Some("rgb"), Some(Conversion::Rgb)),
            (None, Some("a"), Some(Conversion::Alpha)),
            (Some("webp;90"), None, Some(Conversion::Webp { opaque: false })),
            (Some("png"), None, Some(Conversion::Webp { opaque: false })),
            (Some("jpeg;50"), None, Some(Conversion::Jpeg(50))),
            (Some("jpeg"), Some("rgb"), Some(Conversion::Jpeg(90))),
            (
                Some("jpeg;80"),
                Some("a"),
                Some(Conversion::Webp { opaque: false }),
            ),
            (
                Some("webp;75"),
                Some("rgb"),
                Some(Conversion::Webp { opaque: true }),
            ),
            (Some("jpeg;99999"), None, Some(Conversion::Jpeg(100))),
        ] {
            assert_eq!(
                Conversion::choose(preview, channel),
                conversion,
                "{preview:?} {channel:?}"
            );
        }
    }
}
