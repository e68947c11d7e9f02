//! Whether a bucket takes, gives, signs and removes what a server asks of it: what `darkroom doctor` looks at.

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use darkroom_blobs::{Blobs, Presigned, S3Blobs, S3Options};
use darkroom_core::{BlobKey, Ids};

/// What is put, read and removed again.
const PROBE: &[u8] = b"darkroom doctor";
/// An answer to a signed address is waited for so long.
const TIMEOUT: Duration = Duration::from_secs(30);
const PRESIGNED_FOR: Duration = Duration::from_secs(60);

/// What a bucket did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which step, as it stands behind "cannot".
    pub step: &'static str,
    /// What the store or the network said.
    pub why: String,
}

impl Trouble {
    /// What to look at; empty where nobody knows.
    pub fn advice(&self) -> &'static str {
        let has = |word: &str| self.why.contains(word);
        if has("SecondLevelDomainForbidden") {
            "set [blobs] virtual_host = true"
        } else if has("SignatureDoesNotMatch")
            || has("InvalidAccessKeyId")
            || has("AccessDenied")
            || has("403")
        {
            "look at [blobs] access_key, secret_key and region, and at what the key may do"
        } else if has("NoSuchBucket") {
            "make the bucket, or name another in [blobs] url"
        } else if has("connect") || has("dns") || has("timed out") {
            "look at [blobs] endpoint and at the network"
        } else {
            ""
        }
    }
}

/// Puts a file, reads it, opens a signed address of it, and removes it.
///
/// # Errors
/// At the first step that failed.
pub async fn check_bucket(options: &S3Options, ids: &dyn Ids) -> Result<(), Trouble> {
    let blobs = S3Blobs::new(options).map_err(|e| trouble("use it", &e))?;
    let key = format!("doctor/{}", ids.uuid_v4());
    let key: BlobKey = key.parse().expect("a uuid is a segment");
    blobs
        .put_bytes(&key, Bytes::from_static(PROBE))
        .await
        .map_err(|e| trouble("put a file", &e))?;
    let used = read_and_open(&blobs, &key).await;
    // Also after a failure: looking leaves nothing behind.
    let removed = blobs.delete(&key).await;
    used.and(removed.map_err(|e| trouble("remove a file", &e)))
}

async fn read_and_open(blobs: &S3Blobs, key: &BlobKey) -> Result<(), Trouble> {
    let step = "read a file";
    let read = blobs.read(key, 1000).await.map_err(|e| trouble(step, &e))?;
    if read.as_deref() != Some(PROBE) {
        let why = "it is another than was put".to_owned();
        return Err(Trouble { step, why });
    }
    let step = "open a signed address";
    let url = blobs.presign(Presigned::Get, key, PRESIGNED_FOR).await;
    let url = url.map_err(|e| trouble(step, &e))?;
    let failed = |e: reqwest::Error| Trouble {
        step,
        why: e.without_url().to_string(),
    };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .build()
        .map_err(failed)?;
    let status = client.get(url).send().await.map_err(failed)?.status();
    match status.is_success() {
        true => Ok(()),
        false => Err(Trouble {
            step,
            why: format!("it answered {status}"),
        }),
    }
}

/// The last cause says most.
fn trouble(step: &'static str, error: &darkroom_blobs::Error) -> Trouble {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        why = next.to_string();
        cause = next.source();
    }
    let why = in_words(&why);
    Trouble { step, why }
}

/// Of the document that a store answers with, its code and its message.
fn in_words(text: &str) -> String {
    let Some((before, document)) = text.split_once('<') else {
        return text.to_owned();
    };
    let field = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(value, _)| value.trim())
    };
    let said = ["Code", "Message"].into_iter().filter_map(field);
    let before = before.trim().trim_end_matches(':');
    [before].into_iter().chain(said).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_document_is_told_in_words() {
        let text = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code>\
                    <Message>There is none</Message></Error>";
        let words = in_words(text);
        assert_eq!(
            words,
            "Server returned non-2xx status code: 404 Not Found: NoSuchBucket: There is none"
        );
        let trouble = Trouble {
            step: "put a file",
            why: words,
        };
        assert!(trouble.advice().starts_with("make the bucket"));
        assert_eq!(in_words("connection refused"), "connection refused");
    }
}
