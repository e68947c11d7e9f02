//! Tokens of workers that we start: good for one endpoint and one worker, stored nowhere, worthless once the worker is
//! gone.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::EndpointName;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Begins every such token, so that it is never taken for a key.
pub const PREFIX: &str = "dkw_";

/// Makes them, and knows them again.
pub struct WorkerTokens(Hmac<Sha256>);

impl WorkerTokens {
    /// From the server's key.
    pub(super) fn new(server_key: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(server_key).expect("HMAC takes keys of any length");
        mac.update(b"darkroom worker token 1\0");
        WorkerTokens(mac)
    }

    /// The token of a worker.
    pub fn of(&self, endpoint: &EndpointName, worker: &str) -> String {
        let mac = self.mac(endpoint, worker).finalize().into_bytes();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    /// Whether a token is that worker's; `None` when it is no token of ours at all.
    pub fn check(&self, token: &str, endpoint: &EndpointName, worker: &str) -> Option<bool> {
        let encoded = token.strip_prefix(PREFIX)?;
        let good = BASE64_URL_SAFE_NO_PAD
            .decode(encoded)
            .is_ok_and(|mac| self.mac(endpoint, worker).verify_slice(&mac).is_ok());
        Some(good)
    }

    fn mac(&self, endpoint: &EndpointName, worker: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // No name holds a zero byte.
        mac.update(endpoint.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(worker.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_worker_of_one_endpoint() {
        let tokens = WorkerTokens::new(&[7; 32]);
        let (a, b): (EndpointName, EndpointName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let token = tokens.of(&a, "w1");
        assert_eq!(tokens.check(&token, &a, "w1"), Some(true));
        assert_eq!(tokens.check(&token, &b, "w1"), Some(false));
        assert_eq!(tokens.check(&token, &a, "w2"), Some(false));
        assert_eq!(tokens.check(&token[..20], &a, "w1"), Some(false));
        assert_eq!(tokens.check("dk_something", &a, "w1"), None);
        assert_eq!(WorkerTokens::new(&[8; 32]).check(&token, &a, "w1"), Some(false));
    }
}
