//! The recorded conversations with ComfyUI 0.3.64: what came over each socket, in order.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

/// One frame of a recorded socket.
#[derive(Clone, Debug)]
pub enum Frame {
    Text(String),
    /// The first 64 bytes, and whether that is all.
    Binary {
        head: Vec<u8>,
        whole: bool,
    },
    Closed,
}

/// Scenario name to the recording, as it was written down (long texts cut).
pub fn transcripts() -> &'static BTreeMap<String, Value> {
    static ALL: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../data/transcripts.json")).expect("the recording is JSON")
    });
    &ALL
}

/// What came over one socket, with milliseconds since it was opened.
pub type Frames = Vec<(u64, Frame)>;

/// Every recorded socket: scenario, client, frames.
pub fn sockets() -> &'static [(String, String, Frames)] {
    static ALL: LazyLock<Vec<(String, String, Frames)>> = LazyLock::new(read_sockets);
    &ALL
}

fn read_sockets() -> Vec<(String, String, Frames)> {
    let mut all = Vec::new();
    for (scenario, recording) in transcripts() {
        let own = recording.get("messages").map(|frames| ("", frames));
        let clients = recording
            .get("clients")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let crashes = recording.as_object().into_iter().flatten();
        let crashes = crashes.filter_map(|(name, crash)| Some((name.as_str(), crash.get("ws")?)));
        for (client, frames) in own
            .into_iter()
            .chain(clients.map(|(n, f)| (n.as_str(), f)))
            .chain(crashes)
        {
            let frames = frames
                .as_array()
                .expect("frames are a list")
                .iter()
                .filter_map(frame)
                .collect();
            all.push((scenario.clone(), client.to_owned(), frames));
        }
    }
    all
}

/// The frames of one scenario's socket.
pub fn socket(scenario: &str, client: &str) -> Frames {
    let found = sockets().iter().find(|(s, c, _)| s == scenario && c == client);
    found
        .unwrap_or_else(|| panic!("no recording {scenario}/{client}"))
        .2
        .clone()
}

/// `None` for the recorder's own remarks.
fn frame(frame: &Value) -> Option<(u64, Frame)> {
    use base64::Engine as _;
    let at = (frame.get("t")?.as_f64()? * 1000.0) as u64;
    let frame = match (frame.get("text"), frame.get("b64_first_64")) {
        (Some(text), _) => Frame::Text(text.to_string()),
        (None, Some(head)) => {
            let head = base64::engine::general_purpose::STANDARD.decode(head.as_str().expect("base64"));
            let head = head.expect("base64");
            let whole = frame["total_bytes"].as_u64() == Some(head.len() as u64);
            Frame::Binary { head, whole }
        }
        (None, None) => Frame::Closed,
    };
    Some((at, frame))
}
