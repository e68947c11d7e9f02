//! Intermediate output of a handler (`progress_update`): shown as `output` while the job runs, never stored
//! (`protocols/async-endpoints.md` §4.3).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The `type` of the message, among those of ComfyUI.
const KIND: &str = "worker_progress";

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Serialize, Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    output: &'a RawValue,
}

/// The ephemeral message of an intermediate output.
pub fn message(output: &RawValue) -> Arc<str> {
    let message = Message {
        kind: KIND,
        data: Data { output },
    };
    let text = serde_json::to_string(&message).expect("it is JSON already");
    text.into()
}

/// The intermediate output of a job's last ephemeral message; `None` where that is another's (ComfyUI's progress).
pub fn output_of(message: &str) -> Option<Box<RawValue>> {
    let message: Message<'_> = serde_json::from_str(message).ok()?;
    (message.kind == KIND).then(|| message.data.output.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intermediate_output_comes_back_as_the_worker_wrote_it() {
        let output = RawValue::from_string("[1, 2.50]".to_owned()).unwrap();
        assert_eq!(output_of(&message(&output)).unwrap().get(), "[1, 2.50]");
        assert!(output_of(r#"{"type":"progress","data":{"value":1,"max":2}}"#).is_none());
    }
}
