//! Names of a job's files as callers of ComfyUI's own API see them.
//!
//! Two instances both make a `ComfyUI_00001_.png`, and a client asks `/view` for it by that name alone, perhaps without
//! the subfolder. So the names that history and events tell carry the job: `ComfyUI_00001_~<job id as 32 hex>.png`. The
//! instance never sees them. A job's id cannot be guessed, so neither can such a name.

use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use crate::JobId;

/// A file of a job: which job, and what its instance called the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicName {
    /// The job that made it.
    pub job: JobId,
    /// The name on the instance, without folders.
    pub file_name: String,
}

/// Between the name's stem and the job; stands in URLs unescaped.
const MARK: char = '~';
const ID_CHARS: usize = 32;

impl PublicName {
    /// The name of a job's file.
    pub fn new(job: JobId, file_name: &str) -> Self {
        PublicName {
            job,
            file_name: file_name.to_owned(),
        }
    }

    /// Reads a name that [`PublicName`] wrote; `None` for every other.
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, extension) = split(text);
        let (stem, id) = stem.rsplit_once(MARK)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if id.len() != ID_CHARS || !id.bytes().all(hex) {
            return None;
        }
        let job = JobId::from_uuid(Uuid::try_parse(id).ok()?);
        let file_name = format!("{stem}{extension}");
        Some(PublicName { job, file_name })
    }
}

impl fmt::Display for PublicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stem, extension) = split(&self.file_name);
        write!(f, "{stem}{MARK}{}{extension}", self.job.as_uuid().simple())
    }
}

/// Stem and extension with its dot.
fn split(name: &str) -> (&str, &str) {
    name.rfind('.').map_or((name, ""), |dot| name.split_at(dot))
}

/// Gives every file in a node's UI output (the `output` of an `executed` event, or one value of history's `outputs`) its
/// public name: every object with a text `filename`, directly or in a list.
pub fn publish(output: &mut Value, job: JobId) {
    let Value::Object(lists) = output else { return };
    for list in lists.values_mut() {
        match list {
            Value::Array(items) => items.iter_mut().for_each(|item| publish_file(item, job)),
            single => publish_file(single, job),
        }
    }
}

fn publish_file(item: &mut Value, job: JobId) {
    if let Some(Value::String(name)) = item.get_mut("filename")
        && !name.is_empty()
    {
        *name = PublicName::new(job, name).to_string();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn job() -> JobId {
        JobId::from_uuid(Uuid::from_u128(0x0193_4a5b_6c7d_7e8f_9012_3456_789a_bcde))
    }

    #[test]
    fn the_job_stands_before_the_extension() {
        let name = PublicName::new(job(), "ComfyUI_00001_.png").to_string();
        assert_eq!(name, "ComfyUI_00001_~01934a5b6c7d7e8f90123456789abcde.png");
        for other in [
            "ComfyUI_00001_.png",
            "a~b.png",
            "a~01934A5B6C7D7E8F90123456789ABCDE.png",
            "",
        ] {
            assert_eq!(PublicName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn files_of_every_list_are_published_and_nothing_else() {
        let mut output = json!({
            "images": [{"filename": "a.png", "subfolder": "s", "type": "temp"}, {"filename": ""}],
            "gif": {"filename": "b.mp4"},
            "animated": [true], "text": ["filename"],
        });
        publish(&mut output, job());
        let id = job().as_uuid().simple().to_string();
        assert_eq!(
            output,
            json!({
                "images": [
                    {"filename": format!("a~{id}.png"), "subfolder": "s", "type": "temp"},
                    {"filename": ""},
                ],
                "gif": {"filename": format!("b~{id}.mp4")},
                "animated": [true], "text": ["filename"],
            })
        );
        let mut nothing = json!(null);
        publish(&mut nothing, job());
        assert_eq!(nothing, json!(null));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(file_name in "[a-z.~图 ]{1,20}") {
            let name = PublicName::new(job(), &file_name);
            prop_assert_eq!(PublicName::parse(&name.to_string()), Some(name));
        }
    }
}
