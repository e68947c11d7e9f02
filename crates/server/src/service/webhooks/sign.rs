//! Signatures of webhooks, by the Standard Webhooks convention: `webhook-id`, `webhook-timestamp` (seconds), and
//! `webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_core::{TenantId, Timestamp};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::Sha256;

use crate::config::Secret;

/// The keys under which webhooks are signed, one per tenant, all derived from the server's own.
pub struct SigningKeys([u8; 32]);

impl SigningKeys {
    /// From the server's key.
    pub fn new(server_key: &[u8; 32]) -> Self {
        SigningKeys(*server_key)
    }

    /// What a receiver checks signatures with, as the convention writes it: `whsec_` and base64.
    pub fn secret(&self, tenant: &TenantId) -> Secret {
        Secret::new(format!("whsec_{}", STANDARD.encode(self.of(tenant))))
    }

    /// The headers of one try.
    pub(super) fn headers(&self, tenant: &TenantId, message: &str, at: Timestamp, body: &[u8]) -> HeaderMap {
        let seconds = at.as_micros().div_euclid(1_000_000).to_string();
        let mut mac = keyed(&self.of(tenant));
        for part in [message.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            ("webhook-id", message),
            ("webhook-timestamp", seconds.as_str()),
            ("webhook-signature", signature.as_str()),
        ] {
            let value = HeaderValue::from_str(value).expect("ids, numbers and base64 are ASCII");
            headers.insert(HeaderName::from_static(name), value);
        }
        headers
    }

    fn of(&self, tenant: &TenantId) -> [u8; 32] {
        let mut derive = keyed(&self.0);
        derive.update(b"darkroom webhook signatures 1 ");
        derive.update(tenant.as_str().as_bytes());
        derive.finalize().into_bytes().into()
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks as a receiver does that knows the convention and nothing of us.
    fn verifies(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let of = |name: &str| headers[name].to_str().unwrap().to_owned();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", of("webhook-id"), of("webhook-timestamp")).as_bytes());
        mac.update(body);
        let expected = STANDARD.encode(mac.finalize().into_bytes());
        of("webhook-signature")
            .split(' ')
            .any(|one| one.strip_prefix("v1,") == Some(expected.as_str()))
    }

    #[test]
    fn a_receiver_checks_them_with_its_tenants_secret_alone() {
        let keys = SigningKeys::new(&[7; 32]);
        let (alice, bob): (TenantId, TenantId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let at = Timestamp::from_micros(1_800_000_000_999_999);
        let headers = keys.headers(&alice, "msg_1", at, b"{}");
        assert_eq!(headers["webhook-timestamp"], "1800000000");
        let secret = keys.secret(&alice);
        assert!(verifies(secret.expose(), &headers, b"{}"));
        assert!(!verifies(secret.expose(), &headers, b"{ }"), "another body");
        assert!(
            !verifies(keys.secret(&bob).expose(), &headers, b"{}"),
            "another tenant's"
        );
        let mut later = headers.clone();
        later.insert("webhook-timestamp", HeaderValue::from_static("1800000001"));
        assert!(!verifies(secret.expose(), &later, b"{}"), "another time");
    }
}
