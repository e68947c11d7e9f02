//! Binary frames of the WebSocket: a big-endian u32 event, then the event's own layout.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, parse_lenient};

const PREVIEW: u32 = 1;
const TEXT: u32 = 3;
const PREVIEW_WITH_METADATA: u32 = 4;

/// One binary frame.
#[derive(Clone, Debug, PartialEq)]
pub enum BinaryFrame {
    /// Event 1: an image of the node that runs right now. Also the final images of SaveImageWebsocket (PNG).
    Preview { format: ImageFormat, image: Bytes },
    /// Event 3: progress text of a node.
    Text { node_id: String, text: String },
    /// Event 4: sent instead of event 1 to clients that announced `supports_preview_metadata`.
    PreviewWithMetadata { metadata: PreviewMetadata, image: Bytes },
    /// Anything newer.
    Unknown { event: u32, payload: Bytes },
}

/// The u32 of event 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    Jpeg,
    Png,
    Other(u32),
}

/// The JSON head of event 4.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PreviewMetadata {
    #[serde(default)]
    pub node_id: Option<String>,
    #[serde(default)]
    pub prompt_id: Option<String>,
    /// `image/jpeg` or `image/png`.
    #[serde(default)]
    pub image_type: Option<String>,
    /// `display_node_id`, `parent_node_id`, `real_node_id`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl BinaryFrame {
    /// Reads one binary frame; images are slices of it, not copies.
    pub fn parse(frame: Bytes) -> Result<Self, Error> {
        let mut rest = frame;
        let event = take_u32(&mut rest, "its event")?;
        match event {
            PREVIEW => {
                let format = ImageFormat::from(take_u32(&mut rest, "an image format")?);
                Ok(Self::Preview { format, image: rest })
            }
            TEXT => {
                let node_id = utf8(take_block(&mut rest, "a node id")?)?;
                Ok(Self::Text {
                    node_id,
                    text: utf8(rest)?,
                })
            }
            PREVIEW_WITH_METADATA => {
                let metadata = parse_lenient(&take_block(&mut rest, "preview metadata")?)?;
                Ok(Self::PreviewWithMetadata {
                    metadata,
                    image: rest,
                })
            }
            event => Ok(Self::Unknown { event, payload: rest }),
        }
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let mut block = |event: u32, head: &[u8], body: &[u8]| {
            out.put_u32(event);
            out.put_u32(u32::try_from(head.len()).expect("a node id or a preview's head is far below 4 GiB"));
            out.put_slice(head);
            out.put_slice(body);
        };
        match self {
            Self::Preview { format, image } => {
                out.put_u32(PREVIEW);
                out.put_u32(u32::from(*format));
                out.put_slice(image);
            }
            Self::Text { node_id, text } => block(TEXT, node_id.as_bytes(), text.as_bytes()),
            Self::PreviewWithMetadata { metadata, image } => {
                let head = serde_json::to_vec(metadata).expect("text and JSON values always serialise");
                block(PREVIEW_WITH_METADATA, &head, image);
            }
            Self::Unknown { event, payload } => {
                out.put_u32(*event);
                out.put_slice(payload);
            }
        }
        out.freeze()
    }

    /// The image and its media type, for both kinds of preview.
    pub fn image(&self) -> Option<(&Bytes, &str)> {
        match self {
            Self::Preview { format, image } => Some((image, format.media_type())),
            Self::PreviewWithMetadata { metadata, image } => Some((
                image,
                metadata
                    .image_type
                    .as_deref()
                    .unwrap_or("application/octet-stream"),
            )),
            Self::Text { .. } | Self::Unknown { .. } => None,
        }
    }
}

impl ImageFormat {
    /// The media type of images in this format.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Other(_) => "application/octet-stream",
        }
    }
}

impl From<u32> for ImageFormat {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Jpeg,
            2 => Self::Png,
            other => Self::Other(other),
        }
    }
}

impl From<ImageFormat> for u32 {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Jpeg => 1,
            ImageFormat::Png => 2,
            ImageFormat::Other(other) => other,
        }
    }
}

fn take_u32(rest: &mut Bytes, what: &'static str) -> Result<u32, Error> {
    let Some(bytes) = rest.first_chunk::<4>().copied() else {
        return Err(Error::ShortFrame {
            what,
            length: rest.len(),
        });
    };
    *rest = rest.slice(4..);
    Ok(u32::from_be_bytes(bytes))
}

/// A u32 length and that many bytes.
fn take_block(rest: &mut Bytes, what: &'static str) -> Result<Bytes, Error> {
    let length = take_u32(rest, what)? as usize;
    if length > rest.len() {
        return Err(Error::ShortFrame {
            what,
            length: rest.len(),
        });
    }
    Ok(rest.split_to(length))
}

fn utf8(bytes: Bytes) -> Result<String, Error> {
    String::from_utf8(bytes.into()).map_err(|_| Error::NotUtf8)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn recorded(base64: &str) -> Bytes {
        STANDARD.decode(base64).unwrap().into()
    }

    #[test]
    fn recorded_frames_are_read() {
        let text = BinaryFrame::parse(recorded("AAAAAwAAAAExaGVsbG8gZnJvbSAx")).unwrap();
        assert_eq!(
            text,
            BinaryFrame::Text {
                node_id: "1".into(),
                text: "hello from 1".into()
            }
        );
        let png = BinaryFrame::parse(recorded(
            "AAAAAQAAAAKJUE5HDQoaCgAAAA1JSERSAAAAQAAAAEAIAgAAACUL5okAAABN",
        ))
        .unwrap();
        let (image, media_type) = png.image().unwrap();
        assert_eq!((&image[..4], media_type), (&b"\x89PNG"[..], "image/png"));
        let jpeg = BinaryFrame::parse(recorded("AAAAAQAAAAH/2P/gABBKRklG")).unwrap();
        assert_eq!(jpeg.image().unwrap().1, "image/jpeg");
    }

    #[test]
    fn metadata_names_prompt_and_node() {
        let head =
            br#"{"node_id": "5", "prompt_id": "p", "display_node_id": "5", "image_type": "image/jpeg"}"#;
        let mut frame = vec![0, 0, 0, 4, 0, 0, 0, u8::try_from(head.len()).unwrap()];
        frame.extend_from_slice(head);
        frame.extend_from_slice(b"JPEG");
        let parsed = BinaryFrame::parse(frame.into()).unwrap();
        let BinaryFrame::PreviewWithMetadata { metadata, image } = &parsed else {
            panic!("{parsed:?}")
        };
        assert_eq!(
            (metadata.prompt_id.as_deref(), &image[..]),
            (Some("p"), &b"JPEG"[..])
        );
        assert_eq!(metadata.extra["display_node_id"], "5");
    }

    #[test]
    fn short_and_lying_frames_are_refused() {
        for frame in [
            &[][..],
            &[0, 0, 0],
            &[0, 0, 0, 1, 0],
            &[0, 0, 0, 3, 0, 0, 0, 9, 1],
            &[0, 0, 0, 4, 255, 255, 255, 255],
        ] {
            assert!(
                BinaryFrame::parse(Bytes::copy_from_slice(frame)).is_err(),
                "{frame:?}"
            );
        }
        assert!(BinaryFrame::parse(Bytes::from_static(&[0, 0, 0, 3, 0, 0, 0, 0, 0xff])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_and_what_is_written_reads_back(bytes: Vec<u8>, node in ".{0,8}", text in ".{0,8}") {
            if let Ok(frame) = BinaryFrame::parse(bytes.into()) {
                prop_assert_eq!(&BinaryFrame::parse(frame.encode()).unwrap(), &frame);
            }
            let frame = BinaryFrame::Text { node_id: node, text };
            prop_assert_eq!(&BinaryFrame::parse(frame.encode()).unwrap(), &frame);
        }
    }
}
