//! What the extractor needs: the keys of the moment, the sessions, and the rules of this server.

use std::{
    net::SocketAddr,
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use darkroom_core::{Clock, Ids, TenantId};
use darkroom_store::access::Scope;
use http::{HeaderMap, Uri};
use tokio::sync::watch;
use url::Url;

use super::{
    Error,
    caller::Caller,
    credential::{Presented, presented},
    keyring::{Grant, Key, KeyHash, Keyring, hash_key},
    origin,
    sessions::{LINK_LIFETIME, SESSION_LIFETIME, Sessions},
    signed::{BodyDigest, Nonces, SignatureError, Signed, Verified},
};
use crate::{beside::beside, config::ServerConfig, http::RequestId};

/// Decides who a caller is. Cheap to clone.
#[derive(Clone)]
pub struct AuthState {
    inner: Arc<Inner>,
}

struct Inner {
    rules: Rules,
    keyring: RwLock<Arc<Keyring>>,
    changes: watch::Sender<()>,
    sessions: Sessions,
    links: Sessions,
    nonces: Nonces,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

/// The parts of the configuration that decide access.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Only this machine can reach the server.
    pub on_loopback: bool,
    /// The operator asked for no access control at all.
    pub insecure_no_auth: bool,
    /// Origins whose pages may call; `*` counts on anonymous endpoints only.
    pub cors_origins: Vec<String>,
    /// The server's public URL.
    pub public_url: Option<Url>,
    /// How strictly the digest of a signed body is compared.
    pub body_digest: BodyDigest,
}

/// Who signed a request.
#[derive(Debug)]
pub struct AppCaller {
    /// Who.
    pub caller: Caller,
    /// What is still to be judged of the request; `None` where nothing need be signed.
    pub verified: Option<Verified>,
}

/// Why a caller of a signed protocol is turned away.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The request is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Where nothing need be signed, it comes from where nobody may call.
    #[error(transparent)]
    Access(#[from] Error),
}

impl Rules {
    /// The rules for a server that listens on `address`.
    pub fn new(config: &ServerConfig, address: SocketAddr) -> Self {
        Rules {
            on_loopback: address.ip().to_canonical().is_loopback(),
            insecure_no_auth: config.insecure_no_auth,
            cors_origins: config.cors_origins.clone(),
            public_url: config.public_url.clone(),
            body_digest: match config.strict_content_md5 {
                true => BodyDigest::Strict,
                false => BodyDigest::Tolerant,
            },
        }
    }
}

impl AuthState {
    /// With the keys of the moment.
    pub fn new(rules: Rules, keyring: Keyring, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        AuthState {
            inner: Arc::new(Inner {
                rules,
                keyring: RwLock::new(Arc::new(keyring)),
                changes: watch::Sender::new(()),
                sessions: Sessions::default(),
                links: Sessions::default(),
                nonces: Nonces::default(),
                clock,
                ids,
            }),
        }
    }

    /// Replaces the keys and anonymous endpoints (after a reload, or a change of keys or endpoints). Sessions of keys
    /// that are gone end with this.
    pub fn set_keyring(&self, keyring: Keyring) {
        let mut current = self
            .inner
            .keyring
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *current = Arc::new(keyring);
        drop(current);
        self.inner.changes.send_replace(());
    }

    /// Told of every change of the keys, and of every session's end by a logout.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// A caller who was let in before, by the keys of the moment.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when their key is gone, or is needed now.
    pub(super) fn again(&self, caller: &Caller) -> Result<Caller, Error> {
        let (keyring, request_id) = (self.keyring(), caller.request_id.clone());
        match &caller.key_hash {
            _ if self.is_open(&keyring) => Ok(Caller::everyone(request_id, keyring)),
            Some(_) if !self.session_lasts(caller) => Err(Error::Unauthenticated { presented: true }),
            Some(hash) => self.with_hash(hash, request_id, keyring),
            None => without_credential(request_id, keyring),
        }
    }

    /// Whether the session that a caller came by has not ended; true of who came by none.
    fn session_lasts(&self, caller: &Caller) -> bool {
        let sessions = &self.inner.sessions;
        let lasts = |id| sessions.get_by_hash(id, self.inner.clock.now()).is_some();
        caller.session.as_ref().is_none_or(lasts)
    }

    /// Who makes a request, by its credential alone; where it comes from was judged before.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(super) fn by_credential(&self, headers: &HeaderMap, request_id: RequestId) -> Result<Caller, Error> {
        let keyring = self.keyring();
        if self.is_open(&keyring) {
            return Ok(Caller::everyone(request_id, keyring));
        }
        match presented(headers) {
            Presented::Key(key) => self.with_hash(&hash_key(key), request_id, keyring),
            Presented::Session(id) => self.with_session(id, request_id, keyring),
            Presented::Unreadable => Err(Error::Unauthenticated { presented: true }),
            Presented::Nothing => without_credential(request_id, keyring),
        }
    }

    /// The keys of the moment.
    pub fn keyring(&self) -> Arc<Keyring> {
        let current = self
            .inner
            .keyring
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Who makes this request.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::ForeignHost`] or [`Error::ForeignOrigin`].
    pub fn identify(&self, headers: &HeaderMap, uri: &Uri, request_id: RequestId) -> Result<Caller, Error> {
        let rules = &self.inner.rules;
        let keyring = self.keyring();
        if self.is_open(&keyring) {
            // Also with --insecure-no-auth a page of another site must not drive the server through its visitor.
            if rules.on_loopback && !rules.insecure_no_auth {
                origin::check_loopback(headers, uri, &rules.cors_origins)?;
            } else {
                origin::check_same_origin(headers, rules.public_url.as_ref(), &rules.cors_origins)?;
            }
            return Ok(Caller::everyone(request_id, keyring));
        }
        if let Presented::Session(_) = presented(headers) {
            origin::check_same_origin(headers, rules.public_url.as_ref(), &rules.cors_origins)?;
        }
        self.by_credential(headers, request_id)
    }

    /// Who presents this key, for protocols that carry it elsewhere than in `Authorization`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when nobody knows it.
    pub fn identify_key(&self, key: &str, request_id: RequestId) -> Result<Caller, Error> {
        let keyring = self.keyring();
        if self.is_open(&keyring) {
            return Ok(Caller::everyone(request_id, keyring));
        }
        self.with_hash(&hash_key(key), request_id, keyring)
    }

    /// Who signed this request, before its body is read. On a server without keys everyone may do all, and signatures are
    /// not looked at.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn identify_app(
        &self,
        signed: &Signed<'_>,
        uri: &Uri,
        request_id: RequestId,
    ) -> Result<AppCaller, AppError> {
        let keyring = self.keyring();
        if self.is_open(&keyring) {
            return Ok(AppCaller {
                caller: self.identify(signed.headers, uri, request_id)?,
                verified: None,
            });
        }
        let known = keyring.app(signed.app_key()?);
        let (secret, key) = known.ok_or(SignatureError::InvalidAppKey)?;
        let now = self.inner.clock.now();
        let nonces = &self.inner.nonces;
        let verified = signed.verify(secret.expose(), nonces, now, self.public_prefix())?;
        let key = key.clone();
        Ok(AppCaller {
            caller: Caller::with_key(key, None, request_id, keyring),
            verified: Some(verified),
        })
    }

    /// Judges the body of a request whose signature is right, and uses its nonce up in this process. The store has the last
    /// word on the nonce: this process may not be the first to see it.
    ///
    /// # Errors
    /// [`SignatureError::InvalidContentMd5`], [`SignatureError::NonceUsed`], [`SignatureError::Throttled`].
    pub async fn admit(&self, verified: &Verified, body: &Bytes) -> Result<(), SignatureError> {
        let (judged, bytes, how) = (verified.clone(), body.clone(), self.inner.rules.body_digest);
        beside(body.len(), move || judged.check_body(&bytes, how)).await?;
        self.inner.nonces.take(&verified.nonce, self.inner.clock.now())
    }

    /// The path of the public URL, in front of the server's own paths; empty for most.
    pub fn public_prefix(&self) -> &str {
        let public = self.inner.rules.public_url.as_ref();
        public.map_or("", |url| url.path().trim_end_matches('/'))
    }

    /// Exchanges a key for the id of a session; `None` when nobody knows the key.
    pub fn log_in(&self, key: &str) -> Option<String> {
        let hash = hash_key(key);
        self.keyring().find(&hash)?;
        Some(self.open_session(hash))
    }

    /// A token for a one-time login link that stands for this caller's key; `None` for callers without one.
    pub fn new_link(&self, caller: &Caller) -> Option<String> {
        let inner = &self.inner;
        let hash = caller.key_hash?;
        Some(
            inner
                .links
                .open(hash, &*inner.ids, inner.clock.now(), LINK_LIFETIME),
        )
    }

    /// Exchanges such a token for the id of a session; `None` when it was used or is too old.
    pub fn follow_link(&self, token: &str) -> Option<String> {
        let hash = self.inner.links.take(token, self.inner.clock.now())?;
        self.keyring().find(&hash)?;
        Some(self.open_session(hash))
    }

    /// Ends a session.
    pub fn log_out(&self, headers: &HeaderMap) {
        if let Presented::Session(id) = presented(headers) {
            self.inner.sessions.take(id, self.inner.clock.now());
            self.inner.changes.send_replace(());
        }
    }

    /// Whether everyone may do all: no keys ever, and nobody but this machine can come (or the operator insists).
    /// When all keys were revoked the server stays closed.
    pub fn is_open(&self, keyring: &Keyring) -> bool {
        let rules = &self.inner.rules;
        rules.insecure_no_auth && !keyring.has_live_keys() || rules.on_loopback && !keyring.has_history()
    }

    fn open_session(&self, key: KeyHash) -> String {
        let inner = &self.inner;
        inner
            .sessions
            .open(key, &*inner.ids, inner.clock.now(), SESSION_LIFETIME)
    }

    fn with_session(&self, id: &str, request_id: RequestId, keyring: Arc<Keyring>) -> Result<Caller, Error> {
        match self.inner.sessions.get(id, self.inner.clock.now()) {
            Some(key) => {
                let mut caller = self.with_hash(&key, request_id, keyring)?;
                caller.session = Some(hash_key(id));
                Ok(caller)
            }
            // A browser keeps sending a cookie that has ended; that is no attempt to log in.
            None => without_credential(request_id, keyring),
        }
    }

    fn with_hash(
        &self,
        hash: &KeyHash,
        request_id: RequestId,
        keyring: Arc<Keyring>,
    ) -> Result<Caller, Error> {
        let key = keyring
            .find(hash)
            .cloned()
            .ok_or(Error::Unauthenticated { presented: true })?;
        Ok(Caller::with_key(key, Some(*hash), request_id, keyring))
    }
}

fn without_credential(request_id: RequestId, keyring: Arc<Keyring>) -> Result<Caller, Error> {
    if keyring.has_anonymous_endpoints() {
        Ok(Caller::anonymous(request_id, keyring))
    } else {
        Err(Error::Unauthenticated { presented: false })
    }
}

/// The rights of a caller of a server without keys.
pub(super) fn all_rights() -> Key {
    Key {
        name: String::new(),
        tenant: tenant("default"),
        scopes: [Scope::Client, Scope::Publish, Scope::Worker, Scope::Admin].into(),
        endpoints: Grant::All,
    }
}

pub(super) fn tenant(name: &'static str) -> TenantId {
    name.parse().expect("a constant name that follows the rule")
}
