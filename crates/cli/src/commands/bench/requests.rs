//! What is asked for: small graphs whose nodes cost next to nothing.

use serde_json::{Value, json};

use super::wire;

/// Where the Serverless API takes workflows.
pub const RUN: &str = "/api/serverless/run";

/// Two nodes that make and save a picture of 64 by 64.
pub fn trivial() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    })
}

/// An asynchronous call to `path` whose body has exactly 1,024 bytes.
pub fn small_async(path: &str) -> Vec<u8> {
    let mut graph = trivial();
    let length = graph.to_string().len();
    let title = r#","_meta":{"title":""}"#;
    graph["1"]["_meta"] = json!({ "title": "x".repeat(1024 - length - title.len()) });
    wire::post(
        path,
        "X-Fc-Invocation-Type: Async\r\n",
        graph.to_string().as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_body_has_one_kilobyte() {
        let request = String::from_utf8(small_async(RUN)).unwrap();
        assert!(request.contains("Content-Length: 1024\r\n"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 1024);
        assert!(serde_json::from_str::<Value>(body).is_ok());
    }
}
