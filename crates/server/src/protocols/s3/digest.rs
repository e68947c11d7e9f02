//! What a client says of its bytes, before them or after them, and whether they are so.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::HeaderMap;
use s3s::{
    S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256},
    dto::StreamingBlob,
    s3_error,
};

/// The digests that a request promises, by the name of their header, as they are sent (base64).
type Promised = Vec<(&'static str, String)>;

const MD5: &str = "content-md5";
const CRC32: &str = "x-amz-checksum-crc32";
const CRC32C: &str = "x-amz-checksum-crc32c";
const CRC64NVME: &str = "x-amz-checksum-crc64nvme";
const SHA1: &str = "x-amz-checksum-sha1";
const SHA256: &str = "x-amz-checksum-sha256";
const ALL: [&str; 6] = [MD5, CRC32, CRC32C, CRC64NVME, SHA1, SHA256];

/// Computes what a request promises while its bytes go by.
pub struct Digests {
    promised: Promised,
    trailers: Option<TrailingHeaders>,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    md5: Option<Md5>,
    others: ChecksumHasher,
}

impl Digests {
    /// Of a request with these headers. Promises that come behind the bytes are announced by `x-amz-trailer`.
    pub fn of(headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> Digests {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let promised: Promised = ALL
            .into_iter()
            .filter_map(|name| Some((name, text(name)?.trim().to_owned())))
            .collect();
        let announced = text("x-amz-trailer").unwrap_or_default().to_ascii_lowercase();
        let wanted = |name: &str| {
            promised.iter().any(|(promised, _)| *promised == name)
                || announced.split(',').any(|one| one.trim() == name)
        };
        let running = Running {
            md5: wanted(MD5).then(Md5::new),
            others: ChecksumHasher {
                crc32: wanted(CRC32).then(Crc32::new),
                crc32c: wanted(CRC32C).then(Crc32c::new),
                sha1: wanted(SHA1).then(Sha1::new),
                sha256: wanted(SHA256).then(Sha256::new),
                crc64nvme: wanted(CRC64NVME).then(Crc64Nvme::new),
            },
        };
        Digests {
            promised,
            trailers,
            running: Arc::new(Mutex::new(running)),
        }
    }

    /// The bytes, which are looked at as they go by.
    pub fn watch(&self, body: StreamingBlob) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
        let running = self.running.clone();
        body.map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(md5) = &mut running.md5 {
                md5.update(&piece);
            }
            running.others.update(&piece);
            Ok(piece)
        })
        .boxed()
    }

    /// Whether the bytes that went by are what was promised.
    ///
    /// # Errors
    /// `BadDigest`.
    pub fn check(mut self) -> S3Result<()> {
        let behind = self.trailers.and_then(|trailers| trailers.take());
        let behind = behind.unwrap_or_default();
        for name in ALL {
            if let Some(value) = behind.get(name).and_then(|value| value.to_str().ok()) {
                self.promised.push((name, value.trim().to_owned()));
            }
        }
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        let md5 = running.md5.map(|md5| BASE64_STANDARD.encode(md5.finalize()));
        let others = running.others.finalize();
        for (name, promised) in self.promised {
            let computed = match name {
                MD5 => &md5,
                CRC32 => &others.checksum_crc32,
                CRC32C => &others.checksum_crc32c,
                CRC64NVME => &others.checksum_crc64nvme,
                SHA1 => &others.checksum_sha1,
                _ => &others.checksum_sha256,
            };
            // One that was not announced was not computed; nobody can be held to it.
            if computed.as_ref().is_some_and(|computed| *computed != promised) {
                return Err(s3_error!(BadDigest, "{name} is of other bytes"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn sent(headers: &[(&'static str, &str)], body: &'static str) -> S3Result<()> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let digests = Digests::of(&headers, None);
        let body = StreamingBlob::from(s3s::Body::from(Bytes::from(body)));
        let pieces: Vec<Bytes> = digests.watch(body).try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"hello");
        digests.check()
    }

    #[tokio::test]
    async fn bytes_are_what_was_promised_of_them() {
        for (name, digest) in [
            (MD5, "XUFAKrxLKna5cZ2REBfFkg=="),
            (CRC32, "NhCmhg=="),
            (CRC32C, "mnG7TA=="),
            (SHA1, "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
            (SHA256, "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
        ] {
            sent(&[(name, digest)], "hello").await.unwrap();
            let other = format!("A{}", &digest[1..]);
            let error = sent(&[(name, &other)], "hello").await.unwrap_err();
            assert_eq!(error.code().as_str(), "BadDigest", "{name}");
        }
        sent(&[], "hello").await.unwrap();
        sent(&[(MD5, "XUFAKrxLKna5cZ2REBfFkg=="), (CRC32, "NhCmhg==")], "hello")
            .await
            .unwrap();
    }
}
