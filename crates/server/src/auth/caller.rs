//! The caller of a request, as an axum extractor: `caller: Caller`, or `Result<Caller, Rejection>` where a protocol
//! answers in its own shape.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Response},
};
use darkroom_core::{EndpointName, TenantId};
use darkroom_store::access::Scope;
use http::request::Parts;

use super::{
    AuthState, Error,
    keyring::{AnonymousUse, Grant, Key, KeyHash, Keyring},
    state::{all_rights, tenant},
};
use crate::http::{RequestId, error_response};

/// Who makes a request, and what they may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose jobs and files they see.
    pub tenant: TenantId,
    /// The scopes of their key. Ask [`Caller::may`] rather than looking here: `admin` holds all.
    pub scopes: BTreeSet<Scope>,
    /// The endpoints of their key.
    pub endpoints: Grant,
    /// The name of their key; `None` for callers without one.
    pub key_name: Option<String>,
    /// No credential, on a server that has keys: tenant `anonymous`, who reaches jobs and files only by their ids.
    pub anonymous: bool,
    /// The id of the request.
    pub request_id: RequestId,
    pub(super) key_hash: Option<KeyHash>,
    /// The hash of the id of the browser's session that they came by.
    pub(super) session: Option<KeyHash>,
    keyring: Arc<Keyring>,
}

impl Caller {
    /// Everyone, on a server without keys.
    pub(super) fn everyone(request_id: RequestId, keyring: Arc<Keyring>) -> Self {
        Caller {
            key_name: None,
            ..Self::with_key(all_rights(), None, request_id, keyring)
        }
    }

    pub(super) fn with_key(
        key: Key,
        hash: Option<KeyHash>,
        request_id: RequestId,
        keyring: Arc<Keyring>,
    ) -> Self {
        Caller {
            tenant: key.tenant,
            scopes: key.scopes,
            endpoints: key.endpoints,
            key_name: Some(key.name),
            anonymous: false,
            request_id,
            key_hash: hash,
            session: None,
            keyring,
        }
    }

    pub(super) fn anonymous(request_id: RequestId, keyring: Arc<Keyring>) -> Self {
        Caller {
            tenant: tenant(TenantId::ANONYMOUS),
            scopes: BTreeSet::new(),
            endpoints: Grant::All,
            key_name: None,
            anonymous: true,
            request_id,
            key_hash: None,
            session: None,
            keyring,
        }
    }

    /// Whether they may still do all that another may, as the same tenant.
    pub(super) fn has_rights_of(&self, other: &Caller) -> bool {
        let holds_endpoints = match (&self.endpoints, &other.endpoints) {
            (Grant::All, _) => true,
            (Grant::Named(_), Grant::All) => false,
            (Grant::Named(now), Grant::Named(before)) => before.is_subset(now),
        };
        let holds_scopes = self.is_admin() || other.scopes.is_subset(&self.scopes);
        self.tenant == other.tenant && holds_scopes && holds_endpoints
    }

    /// Whether they may do something that takes this scope on this endpoint.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for callers without a key, unless the endpoint is anonymous and the scope `client`;
    /// else [`Error::MissingScope`] or [`Error::ForeignEndpoint`].
    pub fn may(&self, scope: Scope, endpoint: &EndpointName) -> Result<(), Error> {
        if self.anonymous {
            return if scope == Scope::Client && self.keyring.anonymous_use(endpoint).is_some() {
                Ok(())
            } else {
                Err(Error::Unauthenticated { presented: false })
            };
        }
        self.may_anywhere(scope)?;
        if self.endpoints.holds(endpoint) {
            Ok(())
        } else {
            Err(Error::ForeignEndpoint {
                endpoint: endpoint.to_string(),
            })
        }
    }

    /// Whether they may list jobs of this endpoint.
    ///
    /// # Errors
    /// As [`Caller::may`]; callers without a key list only where `anonymous_history` allows it.
    pub fn may_list(&self, endpoint: &EndpointName) -> Result<(), Error> {
        if self.anonymous && self.keyring.anonymous_use(endpoint) != Some(AnonymousUse::WithHistory) {
            return Err(Error::Unauthenticated { presented: false });
        }
        self.may(Scope::Client, endpoint)
    }

    /// Whether they may do something that takes this scope and is not about one endpoint.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::MissingScope`].
    pub fn may_anywhere(&self, scope: Scope) -> Result<(), Error> {
        if self.anonymous {
            Err(Error::Unauthenticated { presented: false })
        } else if self.scopes.contains(&scope) || self.is_admin() {
            Ok(())
        } else {
            Err(Error::MissingScope { scope })
        }
    }

    /// Whose jobs they see: an operator everyone's (`None`), anybody else their own tenant's.
    pub fn visible_tenant(&self) -> Option<&TenantId> {
        (!self.is_admin()).then_some(&self.tenant)
    }

    /// The endpoints whose jobs and instances they see; `None`: every one.
    pub fn visible_endpoints(&self) -> Option<Vec<EndpointName>> {
        match &self.endpoints {
            Grant::All => None,
            // A name that cannot be one is of no endpoint.
            Grant::Named(names) => Some(names.iter().filter_map(|name| name.parse().ok()).collect()),
        }
    }

    /// Whether they operate this endpoint: what its instances print, their processes and addresses are theirs to see.
    pub fn operates(&self, endpoint: &EndpointName) -> bool {
        self.may(Scope::Admin, endpoint).is_ok()
    }

    /// Whether they operate every endpoint, and so the machine that the server runs on.
    ///
    /// # Errors
    /// As [`Caller::may_anywhere`]; [`Error::ForeignEndpoint`] where their key names endpoints.
    pub fn may_everywhere(&self, scope: Scope) -> Result<(), Error> {
        self.may_anywhere(scope)?;
        match &self.endpoints {
            Grant::All => Ok(()),
            Grant::Named(_) => Err(Error::ForeignEndpoint {
                endpoint: "*".to_owned(),
            }),
        }
    }

    /// Whether they may do everything.
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(&Scope::Admin)
    }
}

/// A refused request, ready to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub error: Error,
    /// The id of the request.
    pub request_id: RequestId,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        auth_error_response(&self.error, &self.request_id)
    }
}

/// The answer of our own API to a refused caller; protocols have their own.
pub fn auth_error_response(error: &Error, request_id: &RequestId) -> Response {
    let mut response = error_response(error.status(), error.code(), &error.to_string(), request_id);
    if let Error::Unauthenticated { .. } = error {
        let headers = response.headers_mut();
        headers.insert(
            http::header::WWW_AUTHENTICATE,
            http::HeaderValue::from_static("Bearer"),
        );
    }
    response
}

impl<S> FromRequestParts<S> for Caller
where
    AuthState: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let request_id = RequestId::of(&parts.extensions);
        AuthState::from_ref(state)
            .identify(&parts.headers, &parts.uri, request_id.clone())
            .map_err(|error| Rejection { error, request_id })
    }
}
