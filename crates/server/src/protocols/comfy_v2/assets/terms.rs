//! What a caller says of a file beside its bytes.

use std::time::Duration;

use super::{super::error::ApiError, path};
use crate::service::assets::{ContentHash, create::AssetTerms};

/// How long a file may be asked to be kept, in seconds (`protocols/comfy-v2.md` §6).
const LIFE_S: std::ops::RangeInclusive<u64> = 60..=604_800;
const MOST_TYPE_BYTES: usize = 120;

/// As they were sent.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    /// Its path.
    pub file_path: Option<String>,
    /// Its media type.
    pub content_type: Option<String>,
    /// How long it is to be kept.
    pub expires_in: Option<u64>,
    /// What its bytes are.
    pub expected: Option<ContentHash>,
}

impl Said {
    /// As the service takes them.
    ///
    /// # Errors
    /// 422 for what makes no sense.
    pub fn check(self) -> Result<AssetTerms, ApiError> {
        let wrong = |message: String| ApiError::unprocessable("invalid_request", message);
        if let Some(given) = &self.file_path {
            path::check(given).map_err(wrong)?;
        }
        if self
            .content_type
            .as_deref()
            .is_some_and(|given| !is_media_type(given))
        {
            return Err(wrong(
                "content_type must be a media type like image/png".to_owned(),
            ));
        }
        if self.expires_in.is_some_and(|wish| !LIFE_S.contains(&wish)) {
            return Err(wrong(
                "expires_in must be a number of seconds from 60 to 604800".to_owned(),
            ));
        }
        Ok(AssetTerms {
            file_path: self.file_path,
            content_type: self.content_type,
            expires_in: self.expires_in.map(Duration::from_secs),
            expected: self.expected,
        })
    }
}

/// Of `type/subtype`, with parameters or without; it becomes a header.
fn is_media_type(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_one = essence
        .split_once('/')
        .is_some_and(|(kind, rest)| plain(kind) && plain(rest));
    is_one && text.len() <= MOST_TYPE_BYTES && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |content_type: &str, expires_in| Said {
            content_type: Some(content_type.to_owned()),
            expires_in: Some(expires_in),
            ..Said::default()
        };
        for (content_type, expires_in, fine) in [
            ("image/png", 60, true),
            ("text/plain; charset=utf-8", 604_800, true),
            ("image/svg+xml", 61, true),
            ("image", 61, false),
            ("/", 61, false),
            ("image/png\r\nx: y", 61, false),
            ("image/png", 59, false),
            ("image/png", 604_801, false),
        ] {
            assert_eq!(
                with(content_type, expires_in).check().is_ok(),
                fine,
                "{content_type:?} {expires_in}"
            );
        }
    }
}
