//! Who may keep objects here: an access key names an endpoint and for whom it was made, and its secret follows from the
//! server's key. So nothing is stored, and addresses that workers signed are good after a restart and after the worker's end.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::EndpointName;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Of workers that we start.
const OWN: &str = "DKO";
/// Of workers that come by themselves, with a key.
const KEYED: &str = "DKK";
/// Digits of a key's hash that an access key names: enough to tell keys apart, too few to be of use.
const HASH_DIGITS: usize = 16;

/// For whom an access key was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The workers of an endpoint that we start.
    Own(EndpointName),
    /// Those that come with a key.
    Keyed {
        /// Whose jobs they take.
        endpoint: EndpointName,
        /// The first digits of the key's hash, in hexadecimal.
        hash: String,
    },
}

impl Holder {
    /// Who comes with the key of this SHA-256.
    pub fn keyed(endpoint: EndpointName, key_sha256: &[u8; 32]) -> Holder {
        let hash = key_sha256[..HASH_DIGITS / 2]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Holder::Keyed { endpoint, hash }
    }

    /// Reads an access key; `None`: it is none of ours.
    pub fn parse(access_key: &str) -> Option<Holder> {
        let (kind, rest) = access_key.split_once('.')?;
        match kind {
            OWN => rest.parse().ok().map(Holder::Own),
            KEYED => {
                let (hash, endpoint) = rest.split_once('.')?;
                let hexadecimal = hash.len() == HASH_DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit());
                let endpoint = endpoint.parse().ok().filter(|_| hexadecimal)?;
                Some(Holder::Keyed {
                    endpoint,
                    hash: hash.to_owned(),
                })
            }
            _ => None,
        }
    }

    /// The access key.
    pub fn access_key(&self) -> String {
        match self {
            Holder::Own(endpoint) => format!("{OWN}.{endpoint}"),
            Holder::Keyed { endpoint, hash } => format!("{KEYED}.{hash}.{endpoint}"),
        }
    }

    /// Whose objects it opens.
    pub fn endpoint(&self) -> &EndpointName {
        match self {
            Holder::Own(endpoint) | Holder::Keyed { endpoint, .. } => endpoint,
        }
    }
}

/// Makes secrets of access keys.
pub(super) struct Secrets(Hmac<Sha256>);

impl Secrets {
    /// From the server's key.
    pub(super) fn new(server_key: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(server_key).expect("HMAC takes keys of any length");
        mac.update(b"darkroom objects 1\0");
        Secrets(mac)
    }

    /// The secret of an access key.
    pub(super) fn of(&self, holder: &Holder) -> String {
        self.tag(&["secret", &holder.access_key()])
    }

    /// Proves that we made what these parts say.
    pub(super) fn tag(&self, parts: &[&str]) -> String {
        let mut mac = self.0.clone();
        for part in parts {
            // Lengths first: no two lists of parts give the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Whether a tag is of these parts.
    pub(super) fn is_tag(&self, tag: &str, parts: &[&str]) -> bool {
        use subtle::ConstantTimeEq;
        self.tag(parts).as_bytes().ct_eq(tag.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_key_says_for_whom_it_was_made() {
        let endpoint: EndpointName = "a.b".parse().unwrap();
        let hash = [0xab; 32];
        for holder in [
            Holder::Own(endpoint.clone()),
            Holder::keyed(endpoint.clone(), &hash),
            // An endpoint may be called like the digits of a hash.
            Holder::Own("abababababababab.b".parse().unwrap()),
        ] {
            assert_eq!(Holder::parse(&holder.access_key()), Some(holder));
        }
        for other in [
            "",
            "DKO",
            "DKO.",
            "DKO.a/b",
            "DKK.ab.x",
            "DKK.zzzzzzzzzzzzzzzz.x",
            "AKIAIOSFODNN7EXAMPLE",
        ] {
            assert_eq!(Holder::parse(other), None, "{other}");
        }
    }

    #[test]
    fn secrets_differ_by_endpoint_by_key_and_by_server() {
        let (a, b): (EndpointName, EndpointName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let secrets = Secrets::new(&[7; 32]);
        let own = secrets.of(&Holder::Own(a.clone()));
        assert_eq!(own, Secrets::new(&[7; 32]).of(&Holder::Own(a.clone())));
        for other in [
            secrets.of(&Holder::Own(b)),
            secrets.of(&Holder::keyed(a.clone(), &[1; 32])),
            Secrets::new(&[8; 32]).of(&Holder::Own(a)),
        ] {
            assert_ne!(own, other);
        }
        assert_ne!(secrets.tag(&["ab", "c"]), secrets.tag(&["a", "bc"]));
    }
}
