//! What `/view` makes of an image file (`comfyui/behaviour.md` §10): previews and channels.

/// What to make of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// WebP, with or without alpha.
    Webp {
        /// Alpha is dropped.
        opaque: bool,
    },
    /// JPEG of this quality, 1 to 100.
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
