//! Our own expiring links to blobs: an HMAC over what may be done with which blob, until when.
//!
//! Pure: who makes the secret, and who serves the link, is the server's business.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::{BlobKey, Timestamp};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

/// The path under which blobs are served, in front of the key.
pub const PATH_PREFIX: &str = "/darkroom/v1/blobs/";

/// All but the unreserved characters of RFC 3986, and `/`, which separates the segments of a key.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// What may be done with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read it, by GET or HEAD.
    Get,
    /// Write it, by PUT.
    Put,
}

impl Method {
    /// What a request with this HTTP method asks for, if links are for that at all.
    pub fn of_http(method: &str) -> Option<Method> {
        match method {
            "GET" | "HEAD" => Some(Method::Get),
            "PUT" => Some(Method::Put),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
        }
    }
}

/// Signs and checks links. Cheap to clone; never printed.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// What one upload may bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadTerms<'a> {
    /// The longest body, in bytes.
    pub max_bytes: u64,
    /// The media type it must come with.
    pub content_type: &'a str,
}

/// What a valid link allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Until when (whole seconds).
    pub expires_at: Timestamp,
    /// The longest body that may be put.
    pub max_bytes: Option<u64>,
}

/// Why a link is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is not signed at all.
    #[error("the address carries no signature")]
    Missing,
    /// It was valid once.
    #[error("the signed address has expired")]
    Expired,
    /// Its signature is for something else, or made with another secret.
    #[error("the signature does not fit the address")]
    Mismatch,
}

impl Signer {
    /// A signer with the server's secret. Signing uses a key derived from it, so that the secret may serve other
    /// purposes too.
    pub fn new(secret: &[u8; 32]) -> Signer {
        let mut derive = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        derive.update(b"darkroom signed blob addresses 1");
        let key = derive.finalize().into_bytes();
        Signer {
            keyed: Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length"),
        }
    }

    /// The query of a link that is valid until `expires_at` (whole seconds, rounded down):
    /// `expires=1700000000[&max=1000]&signature=…`.
    pub fn sign(
        &self,
        method: Method,
        key: &BlobKey,
        expires_at: Timestamp,
        max_bytes: Option<u64>,
    ) -> String {
        let expires = expires_at.as_millis().div_euclid(1000);
        let signature = self.mac(method, key, expires, max_bytes).finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode(signature);
        match max_bytes {
            Some(max) => format!("expires={expires}&max={max}&signature={signature}"),
            None => format!("expires={expires}&signature={signature}"),
        }
    }

    /// The query of a link by which one file may be put under `name` until `expires_at`; no other media type or length.
    pub fn sign_upload(&self, name: &BlobKey, expires_at: Timestamp, terms: &UploadTerms<'_>) -> String {
        let expires = expires_at.as_millis().div_euclid(1000);
        let signature = self.upload_mac(name, expires, terms).finalize().into_bytes();
        format!(
            "expires={expires}&max={}&signature={}",
            terms.max_bytes,
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    /// Checks the query of such a request and the media type that it came with.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify_upload(
        &self,
        name: &BlobKey,
        query: &str,
        content_type: &str,
        now: Timestamp,
    ) -> Result<Grant, SignatureError> {
        let given = Given::parse(query)?;
        let max_bytes = given.max_bytes.ok_or(SignatureError::Mismatch)?;
        let signature = URL_SAFE_NO_PAD
            .decode(given.signature)
            .map_err(|_| SignatureError::Mismatch)?;
        let terms = UploadTerms {
            max_bytes,
            content_type,
        };
        self.upload_mac(name, given.expires, &terms)
            .verify_slice(&signature)
            .map_err(|_| SignatureError::Mismatch)?;
        let expires_at = Timestamp::from_millis(given.expires.saturating_mul(1000));
        match now >= expires_at {
            true => Err(SignatureError::Expired),
            false => Ok(Grant {
                expires_at,
                max_bytes: Some(max_bytes),
            }),
        }
    }

    /// The media type stands last: whatever is in it, no two requests give the same text.
    fn upload_mac(&self, name: &BlobKey, expires: i64, terms: &UploadTerms<'_>) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(
            format!(
                "UPLOAD\n{name}\n{expires}\n{}\n{}",
                terms.max_bytes, terms.content_type
            )
            .as_bytes(),
        );
        mac
    }

    /// Path and query of a link: to be put behind the public base URL.
    pub fn sign_path(
        &self,
        method: Method,
        key: &BlobKey,
        expires_at: Timestamp,
        max_bytes: Option<u64>,
    ) -> String {
        format!("{}?{}", path(key), self.sign(method, key, expires_at, max_bytes))
    }

    /// Checks the query of a request against what it asks for.
    ///
    /// # Errors
    /// [`SignatureError`]; that a link has expired is only told of one that was genuine.
    pub fn verify(
        &self,
        method: Method,
        key: &BlobKey,
        query: &str,
        now: Timestamp,
    ) -> Result<Grant, SignatureError> {
        let given = Given::parse(query)?;
        let signature = URL_SAFE_NO_PAD
            .decode(given.signature)
            .map_err(|_| SignatureError::Mismatch)?;
        // Compares in constant time.
        self.mac(method, key, given.expires, given.max_bytes)
            .verify_slice(&signature)
            .map_err(|_| SignatureError::Mismatch)?;
        let expires_at = Timestamp::from_millis(given.expires.saturating_mul(1000));
        if now >= expires_at {
            return Err(SignatureError::Expired);
        }
        Ok(Grant {
            expires_at,
            max_bytes: given.max_bytes,
        })
    }

    /// One line for each part; a key holds no line breaks, so no two requests give the same text.
    fn mac(&self, method: Method, key: &BlobKey, expires: i64, max_bytes: Option<u64>) -> Hmac<Sha256> {
        let max = max_bytes.map_or_else(|| "-".to_owned(), |max| max.to_string());
        let mut mac = self.keyed.clone();
        mac.update(format!("{}\n{key}\n{expires}\n{max}", method.as_str()).as_bytes());
        mac
    }
}

/// The path of a blob: [`PATH_PREFIX`] and its key, percent-encoded.
pub fn path(key: &BlobKey) -> String {
    format!("{PATH_PREFIX}{}", utf8_percent_encode(key.as_str(), ESCAPED))
}

/// The parts of a query that concern us; it may hold others, such as a download's name.
struct Given<'a> {
    expires: i64,
    max_bytes: Option<u64>,
    signature: &'a str,
}

impl<'a> Given<'a> {
    fn parse(query: &'a str) -> Result<Given<'a>, SignatureError> {
        let (mut expires, mut max, mut signature) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "expires" => &mut expires,
                "max" => &mut max,
                "signature" => &mut signature,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                // Two of a kind: somebody hopes that we check one and use the other.
                return Err(SignatureError::Mismatch);
            }
        }
        let signature = signature.ok_or(SignatureError::Missing)?;
        let expires = number(expires.ok_or(SignatureError::Mismatch)?)?;
        let max_bytes = max.map(number).transpose()?;
        Ok(Given {
            expires: i64::try_from(expires).map_err(|_| SignatureError::Mismatch)?,
            max_bytes,
            signature,
        })
    }
}

/// Digits only: the one spelling that [`Signer::sign`] writes.
fn number(text: &str) -> Result<u64, SignatureError> {
    let value: u64 = text.parse().map_err(|_| SignatureError::Mismatch)?;
    if value.to_string() == text {
        Ok(value)
    } else {
        Err(SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn key() -> BlobKey {
        "outputs/x/图 1.png".parse().unwrap()
    }

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn links_have_a_fixed_form() {
        // Links that are out in the world must stay valid: this text changes only with a new derivation label.
        // Computed with Python's hmac module.
        let signer = Signer::new(&SECRET);
        assert_eq!(
            signer.sign_path(Method::Get, &key(), seconds(1_700_000_000), None),
            "/darkroom/v1/blobs/outputs/x/%E5%9B%BE%201.png?expires=1700000000&signature=AoJ9VC-poCiV9J5wt6UuFvXLN9hbC-1wuou6Tu52ZdQ"
        );
        assert_eq!(
            signer.sign(Method::Put, &key(), seconds(1_700_000_000), Some(1000)),
            "expires=1700000000&max=1000&signature=vDlTjlMkpN8TxlRwb-k-7Jj9HeOrhyB5_iYIcsQQzG8"
        );
    }

    #[test]
    fn a_link_is_valid_until_it_expires() {
        let signer = Signer::new(&SECRET);
        let query = signer.sign(
            Method::Get,
            &key(),
            seconds(100).plus(std::time::Duration::from_millis(999)),
            None,
        );
        let grant = signer.verify(Method::Get, &key(), &query, seconds(99)).unwrap();
        assert_eq!((grant.expires_at, grant.max_bytes), (seconds(100), None));
        let late = signer.verify(Method::Get, &key(), &query, seconds(100));
        assert_eq!(late, Err(SignatureError::Expired));
        // Other parameters do not matter.
        let more = format!("name=a.png&{query}&x");
        assert!(signer.verify(Method::Get, &key(), &more, seconds(99)).is_ok());
    }

    #[test]
    fn tampered_links_are_refused() {
        let signer = Signer::new(&SECRET);
        let query = signer.sign(Method::Put, &key(), seconds(100), Some(10));
        let check = |query: &str| signer.verify(Method::Put, &key(), query, seconds(1));
        assert_eq!(check(&query).unwrap().max_bytes, Some(10));
        for bad in [
            query.replace("expires=100", "expires=200"),
            query.replace("expires=100", "expires=0100"),
            query.replace("expires=100", "expires=+100"),
            query.replace("expires=100", "expires=-1"),
            query.replace("expires=100", "expires=99999999999999999999"),
            query.replace("expires=100&", ""),
            query.replace("max=10", "max=11"),
            query.replace("max=10&", ""),
            query.replace("max=10", "max=1e1"),
            format!("{query}&max=11"),
            format!("expires=200&{query}"),
            format!("{query}&signature=x"),
            format!("{query}A"),
            query[..query.len() - 1].to_owned(),
            "expires=100&max=10&signature=".to_owned(),
        ] {
            assert_eq!(check(&bad), Err(SignatureError::Mismatch), "{bad}");
        }
        for unsigned in ["", "expires=100", "name=x", "Signature=x"] {
            assert_eq!(check(unsigned), Err(SignatureError::Missing), "{unsigned}");
        }
        // Right signature, wrong request.
        let other: BlobKey = "outputs/x/other.png".parse().unwrap();
        assert_eq!(
            signer.verify(Method::Get, &key(), &query, seconds(1)),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            signer.verify(Method::Put, &other, &query, seconds(1)),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            Signer::new(&[8; 32]).verify(Method::Put, &key(), &query, seconds(1)),
            Err(SignatureError::Mismatch)
        );
        // An expired link that is not genuine says nothing about expiry.
        assert_eq!(
            signer.verify(Method::Put, &other, &query, seconds(1000)),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn an_upload_is_bound_to_its_name_length_and_media_type() {
        let signer = Signer::new(&SECRET);
        let terms = UploadTerms {
            max_bytes: 10,
            content_type: "image/png",
        };
        let query = signer.sign_upload(&key(), seconds(100), &terms);
        let check = |query: &str, media: &str, at| signer.verify_upload(&key(), query, media, seconds(at));
        assert_eq!(check(&query, "image/png", 99).unwrap().max_bytes, Some(10));
        assert_eq!(check(&query, "image/png", 100), Err(SignatureError::Expired));
        assert_eq!(check(&query, "image/jpeg", 99), Err(SignatureError::Mismatch));
        assert_eq!(
            check(&query.replace("max=10", "max=11"), "image/png", 99),
            Err(SignatureError::Mismatch)
        );
        let other: BlobKey = "outputs/x/b".parse().unwrap();
        assert!(
            signer
                .verify_upload(&other, &query, "image/png", seconds(99))
                .is_err()
        );
        // Neither is the other kind of link.
        assert!(signer.verify(Method::Put, &key(), &query, seconds(99)).is_err());
        let put = signer.sign(Method::Put, &key(), seconds(100), Some(10));
        assert!(check(&put, "", 99).is_err());
    }

    #[test]
    fn only_reading_and_writing_can_be_granted() {
        assert_eq!(Method::of_http("HEAD"), Some(Method::Get));
        assert_eq!(Method::of_http("DELETE"), None);
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_nothing_else(
            name in "[^/\\\\\\p{C}]{1,40}",
            other in "[^/\\\\\\p{C}]{1,40}",
            expires in 1..4_000_000_000_i64,
            max in proptest::option::of(any::<u64>()),
            flip in any::<prop::sample::Index>(),
        ) {
            let (Ok(key), Ok(other)) = (format!("a/{name}").parse::<BlobKey>(), format!("a/{other}").parse::<BlobKey>()) else {
                return Ok(());
            };
            let signer = Signer::new(&SECRET);
            let query = signer.sign(Method::Get, &key, seconds(expires), max);
            let now = seconds(expires - 1);
            prop_assert_eq!(signer.verify(Method::Get, &key, &query, now).map(|g| g.max_bytes), Ok(max));
            if other != key {
                prop_assert_eq!(signer.verify(Method::Get, &other, &query, now), Err(SignatureError::Mismatch));
            }
            // Any one character changed.
            let at = flip.index(query.len());
            let mut changed = query.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            prop_assert!(signer.verify(Method::Get, &key, &changed, now).is_err());
        }

        #[test]
        fn the_path_decodes_to_the_key(name in "[^/\\\\\\p{C}]{1,40}") {
            if let Ok(key) = format!("a/{name}").parse::<BlobKey>() {
                let path = path(&key);
                prop_assert!(path.is_ascii());
                prop_assert!(!path.contains(['?', '#', ' ', '"', '<', '&']));
                let decoded = percent_encoding::percent_decode_str(&path[PATH_PREFIX.len()..]).decode_utf8().unwrap();
                prop_assert_eq!(decoded.as_ref(), key.as_str());
            }
        }
    }
}
