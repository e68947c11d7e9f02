//! Addresses that workers signed for objects they keep here: a graph that names one gets the object, and nothing is fetched. Only
//! those of workers that we start: whether another's key is still good is not the service's to know.

use darkroom_core::Timestamp;
use darkroom_store::jobs::InputBlob;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::Url;

use super::{
    Error, Service,
    objects::{self, Holder, ObjectName},
};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What Signature Version 4 leaves as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const SIGNATURE: &str = "X-Amz-Signature";
/// Clocks of signers may be ahead so far, in seconds; and an address is good for a week at most.
const SKEW: i64 = 15 * 60;
const LONGEST: i64 = 7 * 24 * 3600;

impl Service {
    /// The object behind an address; `None` for one that nobody signed for it.
    ///
    /// # Errors
    /// [`Error::InputUnavailable`] for one that has expired, or whose object is not there.
    pub(super) async fn own_object(&self, url: &Url) -> Result<Option<InputBlob>, Error> {
        let Some(signed) = Signed::read(url) else {
            return Ok(None);
        };
        let Some(holder @ Holder::Own(_)) = Holder::parse(&signed.access_key) else {
            return Ok(None);
        };
        if !signed.is_of(&self.object_access(&holder).secret_key) {
            return Ok(None);
        }
        let name = ObjectName {
            endpoint: holder.endpoint(),
            bucket: &signed.bucket,
            key: &signed.key,
        };
        if !signed.is_good_at(self.clock.now()) {
            let why = format!("the address of {} has expired", signed.key);
            return Err(Error::input_unavailable(why));
        }
        let gone = || Error::input_unavailable(format!("the object {} is gone", signed.key));
        let object = self.object(name).await?.ok_or_else(gone)?;
        Ok(Some(InputBlob {
            key: object.blob().clone(),
            size: object.size,
            content_type: object.content_type,
        }))
    }
}

/// A presigned address (Signature Version 4, for reading), not checked yet.
struct Signed {
    bucket: String,
    key: String,
    access_key: String,
    scope: [String; 3],
    date: String,
    signed_at: i64,
    lasts: i64,
    signature: String,
    canonical: String,
}

impl Signed {
    /// `None` for what is no such address.
    fn read(url: &Url) -> Option<Signed> {
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let path = decoded(url.path())?;
        let (bucket, key) = path
            .strip_prefix(objects::PATH)?
            .strip_prefix('/')?
            .split_once('/')?;
        let pairs: Vec<(String, String)> = url
            .query()?
            .split('&')
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decoded(name)?, decoded(value)?))
            })
            .collect::<Option<_>>()?;
        let one = |name: &str| {
            let mut values = pairs.iter().filter(|(known, _)| known == name);
            let value = values.next().map(|(_, value)| value.clone());
            value.filter(|_| values.next().is_none())
        };
        if one("X-Amz-Algorithm")? != ALGORITHM || one("X-Amz-SignedHeaders")? != "host" {
            return None;
        }
        // An access key of ours may have dots, and no slashes.
        let credential = one("X-Amz-Credential")?;
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key, day, region, service, "aws4_request"] = parts[..] else {
            return None;
        };
        let date = one("X-Amz-Date")?;
        let signed_at = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", &date).ok()?;
        let signed_at = signed_at
            .to_datetime()
            .ok()?
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()?;
        if !date.starts_with(day) {
            return None;
        }
        let mut query: Vec<(String, String)> = pairs
            .iter()
            .filter(|(name, _)| name != SIGNATURE)
            .map(|(name, value)| (escaped(name), escaped(value)))
            .collect();
        query.sort();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let uri: Vec<String> = path.split('/').map(escaped).collect();
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        Some(Signed {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            access_key: access_key.to_owned(),
            scope: [day, region, service].map(str::to_owned),
            signed_at: signed_at.timestamp().as_second(),
            date,
            lasts: one("X-Amz-Expires")?.parse().ok()?,
            signature: one(SIGNATURE)?,
            canonical: format!(
                "GET\n{}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
                uri.join("/"),
                query.join("&")
            ),
        })
    }

    fn is_of(&self, secret: &str) -> bool {
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in self.scope.iter().map(String::as_str).chain(["aws4_request"]) {
            key = mac(&key, part);
        }
        let scope = self.scope.join("/");
        let canonical = hex(&Sha256::digest(self.canonical.as_bytes()));
        let text = format!("{ALGORITHM}\n{}\n{scope}/aws4_request\n{canonical}", self.date);
        hex(&mac(&key, &text))
            .as_bytes()
            .ct_eq(self.signature.as_bytes())
            .into()
    }

    fn is_good_at(&self, now: Timestamp) -> bool {
        let now = now.as_millis() / 1000;
        (0..=LONGEST).contains(&self.lasts)
            && self.signed_at <= now.saturating_add(SKEW)
            && now < self.signed_at.saturating_add(self.lasts)
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escaped(text: impl AsRef<str>) -> String {
    utf8_percent_encode(text.as_ref(), ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use darkroom_blobs::{Presigned, S3Blobs, S3Credentials, S3Options};
    use darkroom_core::EndpointName;
    use futures::StreamExt;

    use super::*;
    use crate::service::testing::Bench;

    const WORKERS: &str = "[endpoints.w]\nkind = \"worker\"\nbackend = \"external\"\n";

    #[tokio::test]
    async fn what_a_worker_signed_is_the_object_itself_as_long_as_it_says() {
        let bench = Bench::configured(WORKERS);
        let service = &bench.service;
        let endpoint: EndpointName = "w".parse().unwrap();
        let name = ObjectName {
            endpoint: &endpoint,
            bucket: objects::BUCKET,
            key: "job/图 1+2.png",
        };
        let bytes = futures::stream::iter([Ok(Bytes::from_static(b"pixels"))]).boxed();
        let incoming = service.receive_object(name, bytes).await.unwrap();
        service
            .keep_object(name, Some("image/png"), incoming)
            .await
            .unwrap();
        // Signed by somebody else's code, with what our workers are told.
        let access = service.object_access(&Holder::Own(endpoint.clone()));
        let signer = |secret_key: String| {
            S3Blobs::new(&S3Options {
                bucket: objects::BUCKET.to_owned(),
                prefix: String::new(),
                endpoint: Some(access.endpoint_url.clone()),
                region: "us-east-1".to_owned(),
                virtual_host: false,
                credentials: S3Credentials {
                    access_key: access.access_key.clone(),
                    secret_key,
                    session_token: None,
                },
            })
            .unwrap()
        };
        let hour = Duration::from_secs(3600);
        let signed = async |key: &str, what, secret: &str| {
            let key = key.parse().unwrap();
            signer(secret.to_owned()).presign(what, &key, hour).await.unwrap()
        };
        let url = signed(name.key, Presigned::Get, &access.secret_key).await;
        let found = service.own_file(&url).await.unwrap().unwrap();
        assert_eq!((found.size, found.content_type.as_str()), (6, "image/png"));
        let missing = signed("job/other.png", Presigned::Get, &access.secret_key).await;
        assert!(
            service
                .own_file(&missing)
                .await
                .unwrap_err()
                .to_string()
                .contains("is gone")
        );
        for not_ours in [
            signed(name.key, Presigned::Get, "another secret").await,
            signed(name.key, Presigned::Put, &access.secret_key).await,
            url.replace("job/", "jab/"),
            url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"),
            url.replace("127.0.0.1", "127.0.0.2"),
            url.split('?').next().unwrap().to_owned(),
        ] {
            assert_eq!(service.own_file(&not_ours).await.unwrap(), None, "{not_ours}");
        }
        bench.clock.advance(hour + Duration::from_secs(1));
        let late = service.own_file(&url).await.unwrap_err().to_string();
        assert!(late.contains("expired"), "{late}");
    }
}
