//! Requests signed with an app key and its secret, as Alibaba Cloud's API gateway takes them and the SpeedPix SDKs send them
//! (`protocols/speedpix.md` §2).
//!
//! [`verify`](Signed::verify) looks at a request in the gateway's order, before its body is read: nobody without a secret makes
//! the server take one in. What it refuses says in words what was wrong, and for a wrong signature the text that the server
//! signed. Then [`Verified`] judges the body. Pure but for the [`Nonces`].

mod content_md5;
mod nonces;
mod string_to_sign;

use darkroom_core::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

pub use self::nonces::{Nonce, Nonces};
use self::string_to_sign::{Algorithm, SignedNames, candidates};

/// How far a client's clock may be off.
const WINDOW_MS: i64 = 15 * 60 * 1000;

/// How strictly the body's digest is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyDigest {
    /// As the gateway does.
    Strict,
    /// Also bodies that an HTTP library wrote with other blanks and escapes than those that were signed (httpx < 0.28).
    Tolerant,
}

/// A request whose signature is right. What is left to judge are its body, and whether it is the first with its nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its nonce.
    pub nonce: Nonce,
    /// From then on it is refused for its age alone.
    pub good_until: Timestamp,
    content_md5: Option<String>,
}

impl Verified {
    /// Whether the body is the one that was signed; a request may leave that open. Large bodies take milliseconds.
    ///
    /// # Errors
    /// [`SignatureError::InvalidContentMd5`].
    pub fn check_body(&self, body: &[u8], how: BodyDigest) -> Result<(), SignatureError> {
        match &self.content_md5 {
            Some(md5) if !content_md5::fits(body, md5, how) => Err(SignatureError::InvalidContentMd5),
            Some(_) | None => Ok(()),
        }
    }
}

/// A request that claims to be signed.
pub struct Signed<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path as it came, with leading slashes and prefix.
    pub path: &'a str,
    /// The query, if there is one.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// Why a signed request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No app key, or one that nobody knows.
    #[error("Invalid AppKey")]
    InvalidAppKey,
    /// No signature.
    #[error("Empty Signature")]
    EmptySignature,
    /// The time is missing or no number of milliseconds.
    #[error("Invalid Timestamp")]
    InvalidTimestamp,
    /// The client's clock is more than a quarter of an hour off, or the request is old.
    #[error("Timestamp Expired: the request is of {at_ms}, this server's clock says {now_ms}")]
    TimestampExpired {
        /// What it says, in milliseconds.
        at_ms: i64,
        /// What it is.
        now_ms: i64,
    },
    /// Without one a request could be sent again by whoever saw it.
    #[error("Empty Nonce")]
    EmptyNonce,
    /// The same request came before.
    #[error("Nonce Used")]
    NonceUsed,
    /// More requests than can be remembered.
    #[error("Throttled: too many signed requests within half an hour")]
    Throttled,
    /// Another secret, or something was changed on the way.
    #[error("Invalid Signature, Server StringToSign:`{}`", .string_to_sign.replace('\n', "#"))]
    InvalidSignature {
        /// What the server signed. It holds no secret.
        string_to_sign: String,
    },
    /// The body is not the one whose digest was signed.
    #[error("Invalid Content-MD5")]
    InvalidContentMd5,
}

impl Signed<'_> {
    /// A header as text; an empty one is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = self.headers.get(name)?.to_str().ok()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The app key that it names.
    ///
    /// # Errors
    /// [`SignatureError::InvalidAppKey`].
    pub fn app_key(&self) -> Result<&str, SignatureError> {
        self.header("x-ca-key").ok_or(SignatureError::InvalidAppKey)
    }

    /// Checks everything but the app key, which the caller looked up, and the body, in the reference's order. The nonce
    /// is not used up by this: it counts as used when all the rest is right, so that nobody without the secret uses up
    /// another's. `prefix`: a path in front of the server's own, which clients do not sign.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(
        &self,
        app_secret: &str,
        nonces: &Nonces,
        now: Timestamp,
        prefix: &str,
    ) -> Result<Verified, SignatureError> {
        let app_key = self.app_key()?;
        let signature = self
            .header("x-ca-signature")
            .ok_or(SignatureError::EmptySignature)?;
        let at_ms = self
            .header("x-ca-timestamp")
            .and_then(|text| text.parse::<i64>().ok());
        let at_ms = at_ms.ok_or(SignatureError::InvalidTimestamp)?;
        let now_ms = now.as_millis();
        if now_ms.saturating_sub(at_ms).saturating_abs() > WINDOW_MS {
            return Err(SignatureError::TimestampExpired { at_ms, now_ms });
        }
        let nonce = self.header("x-ca-nonce").ok_or(SignatureError::EmptyNonce)?;
        let nonce = Nonce::of(app_key, nonce);
        if nonces.is_used(&nonce, now) {
            return Err(SignatureError::NonceUsed);
        }
        self.check_signature(app_secret, signature, prefix)?;
        Ok(Verified {
            nonce,
            good_until: Timestamp::from_millis(at_ms.saturating_add(WINDOW_MS)),
            content_md5: self.header("content-md5").map(str::to_owned),
        })
    }

    fn check_signature(&self, app_secret: &str, signature: &str, prefix: &str) -> Result<(), SignatureError> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let names = SignedNames::of(self);
        let texts = candidates(self, &names, prefix);
        let wrong = |text: &str| SignatureError::InvalidSignature {
            string_to_sign: text.to_owned(),
        };
        let signed = STANDARD.decode(signature).unwrap_or_default();
        let algorithm = Algorithm::of(self.header("x-ca-signature-method"));
        let fits = |text: &String| match algorithm {
            Some(Algorithm::Sha256) => {
                let mac = Hmac::<Sha256>::new_from_slice(app_secret.as_bytes());
                let mut mac = mac.expect("HMAC takes keys of any length");
                mac.update(text.as_bytes());
                // In constant time.
                mac.verify_slice(&signed).is_ok()
            }
            Some(Algorithm::Sha1) => {
                let key = aws_lc_rs::hmac::Key::new(
                    aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    app_secret.as_bytes(),
                );
                aws_lc_rs::hmac::verify(&key, text.as_bytes(), &signed).is_ok()
            }
            None => false,
        };
        // What is not signed could be made new by whoever recorded the request.
        match names.hold(&["x-ca-timestamp", "x-ca-nonce"]) && texts.iter().any(fits) {
            true => Ok(()),
            false => Err(wrong(&texts[0])),
        }
    }
}

#[cfg(test)]
mod tests;
