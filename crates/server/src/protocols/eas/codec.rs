//! Items on the wire: protobuf (package `streaming`) and JSON (`protocols/eas-queue.md` §3.2).

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, header};
use prost::Message;

use crate::service::queues::ReadItem;

/// The media type of protobuf answers.
pub const PROTOBUF: &str = "application/vnd.google.protobuf";

/// `DataFrameProto`.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(btree_map = "string, string", tag = "2")]
    pub tags: BTreeMap<String, String>,
    #[prost(bytes = "bytes", tag = "3")]
    pub data: Bytes,
    #[prost(string, tag = "4")]
    pub message: String,
}

/// `DataFrameListProto`; the list is called `index` there.
#[derive(Clone, PartialEq, Message)]
pub struct FrameList {
    #[prost(message, repeated, tag = "1")]
    pub index: Vec<Frame>,
}

/// `AttributesProto`.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeMap {
    #[prost(btree_map = "string, string", tag = "1")]
    pub attributes: BTreeMap<String, String>,
}

/// Whether a caller asks for protobuf; anything else gets JSON.
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains(PROTOBUF))
}

/// One item as a frame.
pub fn frame(item: ReadItem) -> Frame {
    Frame {
        index: item.index,
        tags: item.tags,
        data: item.data,
        message: String::new(),
    }
}

/// Items as a list, and its media type.
pub fn list(items: Vec<ReadItem>, protobuf: bool) -> (&'static str, Bytes) {
    if protobuf {
        let index = items.into_iter().map(frame).collect();
        return (PROTOBUF, FrameList { index }.encode_to_vec().into());
    }
    // Written piece by piece: bodies are what is large, and lie here once.
    let mut text = String::from("[");
    for (place, item) in items.into_iter().enumerate() {
        let tags = serde_json::to_string(&item.tags).expect("texts are JSON");
        let comma = if place > 0 { "," } else { "" };
        text += &format!("{comma}{{\"index\":{},\"tags\":{tags},\"data\":\"", item.index);
        STANDARD.encode_string(&item.data, &mut text);
        text += "\"}";
    }
    text += "]";
    ("application/json", text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> ReadItem {
        ReadItem {
            index: 3,
            tags: [("requestId".to_owned(), "r".to_owned())].into(),
            data: Bytes::from_static(b"ab"),
        }
    }

    #[test]
    fn frames_have_the_vendors_bytes() {
        let expected = b"\x08\x03\x12\x0e\x0a\x09requestId\x12\x01r\x1a\x02ab";
        assert_eq!(frame(item()).encode_to_vec(), expected);
        let (kind, bytes) = list(vec![item()], true);
        assert_eq!(
            (kind, bytes[0], usize::from(bytes[1])),
            (PROTOBUF, 0x0a, expected.len())
        );
        assert_eq!(bytes[2..], expected[..]);
        assert_eq!(list(vec![], true).1, Bytes::new());
    }

    #[test]
    fn json_has_data_in_base64_and_no_empty_message() {
        let (kind, bytes) = list(vec![item()], false);
        assert_eq!(kind, "application/json");
        assert_eq!(bytes, r#"[{"index":3,"tags":{"requestId":"r"},"data":"YWI="}]"#);
    }

    #[test]
    fn only_its_own_media_type_means_protobuf() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_protobuf(&headers)
        };
        assert!(wants("application/vnd.google.protobuf"));
        assert!(wants("text/html, application/vnd.google.protobuf;q=0.9"));
        for other in [
            "*/*",
            "application/x-flatbuffers",
            "application/protobuf",
            ";;,,",
            "",
        ] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants_protobuf(&HeaderMap::new()));
    }
}
