//! Server-sent events, parsed as they arrive: bytes in, events out, however the stream was cut.

/// One event. `id` is absent on ephemeral ones (progress), which must not move the resume point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The value of the block's `id:` line.
    pub id: Option<String>,
    /// The value of its `event:` line; empty when there is none.
    pub kind: String,
    /// Its `data:` lines, joined by line feeds.
    pub data: String,
}

/// Longest line that is buffered; a longer one is no answer of a Darkroom server.
const MAX_LINE: usize = 32 << 20;

/// Collects bytes until whole events are there.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    event: SseEvent,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes; returns the events they completed.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if crlf {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_line(&String::from_utf8_lossy(&line)));
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
        events
    }

    fn end_line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.kind = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // A comment has an empty field name; unknown fields are ignored, as the format asks.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\nid: 1\nevent: state\ndata: {\"state\":\"queued\"}\n\nevent: progress\r\ndata: a\r\ndata: 世\r\n\r\n:ping\n\nid: 2\ndata\n\nid: 3\n";

    fn expected() -> Vec<SseEvent> {
        vec![
            SseEvent {
                id: Some("1".into()),
                kind: "state".into(),
                data: "{\"state\":\"queued\"}".into(),
            },
            SseEvent {
                id: None,
                kind: "progress".into(),
                data: "a\n世".into(),
            },
            SseEvent {
                id: Some("2".into()),
                kind: String::new(),
                data: String::new(),
            },
        ]
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_was_cut() {
        let bytes = STREAM.as_bytes();
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut parser = Parser::default();
                let mut got = parser.push(&bytes[..first]);
                got.extend(parser.push(&bytes[first..second]));
                got.extend(parser.push(&bytes[second..]));
                assert_eq!(got, expected(), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert!(Parser::default().push(b"event: state\nid: 4\n\n").is_empty());
    }
}
