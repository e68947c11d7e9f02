//! Credentials inside a request (`extra_data` of ComfyUI's API nodes): on their way to the instance they are stored
//! encrypted, apart from the request, wiped when the job ends, and hidden in everything that the instance says.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use darkroom_core::{Ids, JobId};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::{Error, Service, jobs::JobRecord};
use crate::config::Secret;

/// What ComfyUI itself takes out of its history (`comfyui/behaviour.md` §9).
const NAMES: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// A text shorter than this is no credential, and would be found by chance.
const MIN_HIDDEN_CHARS: usize = 8;

/// Stands where a credential stood.
const HIDDEN: &str = "[hidden]";

/// Encrypts under a key derived from the server's own.
pub struct Vault(LessSafeKey);

impl Vault {
    /// With the server's key.
    pub fn new(server_key: &[u8; 32]) -> Self {
        let mut derive = Hmac::<Sha256>::new_from_slice(server_key).expect("HMAC takes keys of any length");
        derive.update(b"darkroom stored credentials 1");
        let key = derive.finalize().into_bytes();
        let key =
            UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a SHA-256 is as long as the cipher's key");
        Vault(LessSafeKey::new(key))
    }

    /// Nonce, ciphertext, tag; readable only as this job's.
    fn seal(&self, job: JobId, plain: Vec<u8>, ids: &dyn Ids) -> Result<Vec<u8>, Error> {
        self.seal_for(job.as_uuid().as_bytes(), plain, ids)
    }

    /// The secret of an app key; readable only as that key's.
    ///
    /// # Errors
    /// When it cannot be encrypted.
    pub fn seal_secret(&self, app_key: &str, secret: &Secret, ids: &dyn Ids) -> Result<Vec<u8>, Error> {
        self.seal_for(
            format!("app {app_key}").as_bytes(),
            secret.expose().as_bytes().to_vec(),
            ids,
        )
    }

    /// `None` when it is not this key's, or of another server's key.
    pub fn open_secret(&self, app_key: &str, sealed: &[u8]) -> Option<Secret> {
        let plain = self.open_for(format!("app {app_key}").as_bytes(), sealed)?;
        Some(Secret::new(String::from_utf8(plain).ok()?))
    }

    /// `of_whom`: what else the tag vouches for.
    fn seal_for(&self, of_whom: &[u8], plain: Vec<u8>, ids: &dyn Ids) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        ids.fill(&mut nonce);
        let mut sealed = plain;
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(of_whom),
                &mut sealed,
            )
            .map_err(|_| Error::Internal(anyhow::anyhow!("credentials cannot be encrypted")))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// `None` when they are not this job's, or of another server's key.
    fn open(&self, job: JobId, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_for(job.as_uuid().as_bytes(), sealed)
    }

    fn open_for(&self, of_whom: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(of_whom), &mut rest).ok()?;
        Some(plain.to_vec())
    }
}

/// Takes the credentials out of a request; none is the usual case.
pub fn take_out(extra_data: &mut Map<String, Value>) -> Map<String, Value> {
    let taken = NAMES.iter().filter_map(|name| extra_data.remove_entry(*name));
    taken.filter(|(_, value)| !value.is_null()).collect()
}

impl Service {
    /// The credentials as they are stored; `None` when there are none.
    ///
    /// # Errors
    /// When they cannot be encrypted.
    pub(super) fn seal_credentials(
        &self,
        job: JobId,
        credentials: &Map<String, Value>,
    ) -> Result<Option<Vec<u8>>, Error> {
        if credentials.is_empty() {
            return Ok(None);
        }
        let plain = Value::Object(credentials.clone()).to_string().into_bytes();
        self.vault.seal(job, plain, &*self.ids).map(Some)
    }

    /// The credentials of a job that has not ended.
    ///
    /// # Errors
    /// When they are gone or sealed under another key.
    pub(super) async fn credentials_of(&self, job: &JobRecord) -> Result<Map<String, Value>, Error> {
        if !job.meta.has_credentials {
            return Ok(Map::new());
        }
        let sealed = self.store.sealed(job.id).await?;
        sealed
            .and_then(|sealed| self.vault.open(job.id, &sealed))
            .and_then(|plain| serde_json::from_slice(&plain).ok())
            .ok_or_else(|| {
                Error::Internal(anyhow::anyhow!(
                    "the credentials of job {} cannot be read",
                    job.id
                ))
            })
    }
}

/// Credentials that must not be shown.
#[derive(Debug, Default)]
pub(super) struct Hidden(Vec<String>);

impl Hidden {
    /// As they stand in a text or in a JSON string.
    pub(super) fn of(credentials: &Map<String, Value>) -> Self {
        let mut forms = Vec::new();
        for text in credentials.values().filter_map(Value::as_str) {
            if text.chars().count() >= MIN_HIDDEN_CHARS {
                let json = Value::from(text).to_string();
                forms.push(json[1..json.len() - 1].to_owned());
                forms.push(text.to_owned());
            }
        }
        forms.dedup();
        Hidden(forms)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> Option<String> {
        let mut hidden = None::<String>;
        for form in &self.0 {
            let current = hidden.as_deref().unwrap_or(text);
            if current.contains(form.as_str()) {
                hidden = Some(current.replace(form.as_str(), HIDDEN));
            }
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sealed_opens_only_as_the_same_jobs_under_the_same_key() {
        let (vault, other) = (Vault::new(&[1; 32]), Vault::new(&[2; 32]));
        let (job, another) = (JobId::new(&SystemIds), JobId::new(&SystemIds));
        let seal = || vault.seal(job, b"comfyui-0123".to_vec(), &SystemIds).unwrap();
        let sealed = seal();
        assert_ne!(sealed, seal(), "the same text never looks the same");
        assert!(!sealed.windows(7).any(|w| w == b"comfyui"));
        assert_eq!(vault.open(job, &sealed).unwrap(), b"comfyui-0123");
        assert_eq!(vault.open(another, &sealed), None);
        assert_eq!(other.open(job, &sealed), None);
        let mut changed = sealed.clone();
        changed[NONCE_LEN] ^= 1;
        assert_eq!(vault.open(job, &changed), None);
        assert_eq!(vault.open(job, &sealed[..5]), None);
    }

    #[test]
    fn only_credentials_are_taken_out_and_hidden_in_both_forms() {
        let Value::Object(mut extra) = json!({
            "api_key_comfy_org": "comfyui-\"0123", "auth_token_comfy_org": null, "extra_pnginfo": {"a": 1}
        }) else {
            unreachable!()
        };
        let taken = take_out(&mut extra);
        assert_eq!(Value::from(extra), json!({"extra_pnginfo": {"a": 1}}));
        assert_eq!(
            Value::from(taken.clone()),
            json!({"api_key_comfy_org": "comfyui-\"0123"})
        );
        let hidden = Hidden::of(&taken);
        assert_eq!(hidden.hide("a comfyui-\"0123 b").unwrap(), "a [hidden] b");
        assert_eq!(
            hidden.hide(r#"{"x":"comfyui-\"0123"}"#).unwrap(),
            r#"{"x":"[hidden]"}"#
        );
        assert_eq!(hidden.hide("nothing"), None);
        let short = json!({"api_key_comfy_org": "a"});
        assert_eq!(Hidden::of(short.as_object().unwrap()).hide("a cat"), None);
    }
}
