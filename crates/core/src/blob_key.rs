//! Names of blobs: what may stand in one, and how the server builds them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::JobId;

/// The key of a blob: `/`-separated segments that are safe as file names and as object-store keys.
///
/// A segment is 1 to 200 bytes of any UTF-8 but control characters, `/`, `\`, and is neither `.` nor `..`; a key
/// is at most 900 bytes. So a key can never leave the directory it is joined to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobKey(std::sync::Arc<str>);

/// Why a text is not a blob key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid blob key")]
pub struct InvalidBlobKey;

impl BlobKey {
    /// The input payload of a job.
    pub fn job_input(job: JobId) -> Self {
        BlobKey(format!("jobs/{job}/input.json").into())
    }

    /// A payload of a job that has no file name of its own, such as its result or a large event.
    pub fn job_part(job: JobId, name: &str) -> Self {
        BlobKey(format!("jobs/{job}/{}", safe_segment(name)).into())
    }

    /// An output file of a job: under an unguessable id, readable by the name ComfyUI gave it.
    pub fn output(job: JobId, unguessable: uuid::Uuid, file_name: &str) -> Self {
        BlobKey(format!("outputs/{job}/{unguessable}/{}", safe_segment(file_name)).into())
    }

    /// The job whose output file it is of, if it is of one.
    pub fn output_job(&self) -> Option<JobId> {
        let (job, _) = self.0.strip_prefix("outputs/")?.split_once('/')?;
        job.parse().ok()
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// A file name made fit to be one segment of a key: separators and control characters become `_`, over-long names
/// keep their extension.
pub fn safe_segment(name: &str) -> String {
    let cleaned: String = name
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\') {
                '_'
            } else {
                c
            }
        })
        .collect();
    if cleaned.is_empty() || cleaned == "." || cleaned == ".." {
        return "_".to_owned();
    }
    if cleaned.len() <= 200 {
        return cleaned;
    }
    let extension = cleaned
        .rsplit_once('.')
        .map(|(_, e)| e)
        .filter(|e| e.len() <= 12)
        .unwrap_or("");
    let mut cut = 200 - extension.len() - 1;
    while !cleaned.is_char_boundary(cut) {
        cut -= 1;
    }
    if extension.is_empty() {
        cleaned[..cut].to_owned()
    } else {
        format!("{}.{extension}", &cleaned[..cut])
    }
}

impl FromStr for BlobKey {
    type Err = InvalidBlobKey;
    fn from_str(text: &str) -> Result<Self, InvalidBlobKey> {
        let segment_ok = |s: &str| {
            !s.is_empty()
                && s.len() <= 200
                && s != "."
                && s != ".."
                && !s.chars().any(|c| c.is_control() || c == '\\')
        };
        if text.len() <= 900 && text.split('/').all(segment_ok) {
            Ok(BlobKey(text.into()))
        } else {
            Err(InvalidBlobKey)
        }
    }
}

impl TryFrom<String> for BlobKey {
    type Error = InvalidBlobKey;
    fn try_from(text: String) -> Result<Self, InvalidBlobKey> {
        text.parse()
    }
}

impl From<BlobKey> for String {
    fn from(key: BlobKey) -> String {
        key.0.to_string()
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_cannot_climb_out() {
        for bad in [
            "", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a\nb", "a\0",
        ] {
            assert!(bad.parse::<BlobKey>().is_err(), "{bad:?}");
        }
        assert!("outputs/x/图像 1.png".parse::<BlobKey>().is_ok());
    }

    proptest! {
        #[test]
        fn any_file_name_becomes_a_valid_segment(name in "\\PC*|.{0,400}") {
            let job = JobId::from_uuid(uuid::Uuid::nil());
            let key = BlobKey::output(job, uuid::Uuid::nil(), &name);
            prop_assert_eq!(key.as_str().parse::<BlobKey>(), Ok(key.clone()));
            prop_assert_eq!(key.output_job(), Some(job));
            prop_assert_eq!(BlobKey::job_part(job, &name).output_job(), None);
        }
    }
}
