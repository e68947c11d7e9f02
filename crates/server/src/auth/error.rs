//! Why a caller is turned away. Few kinds, which every protocol maps to its own shape.

use darkroom_store::access::Scope;
use http::StatusCode;

/// Why a caller is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No credential where one is needed, or one that nobody knows.
    #[error("{}", if *.presented { "the key is not known here" } else { "a key is needed: send Authorization: Bearer <key>" })]
    Unauthenticated {
        /// Whether a credential was sent.
        presented: bool,
    },
    /// The key is known, and may not do this.
    #[error("the key lacks the scope '{}'", scope_name(*.scope))]
    MissingScope {
        /// What it would take.
        scope: Scope,
    },
    /// The key is known, and may not use this endpoint.
    #[error("the key may not use the endpoint '{endpoint}'")]
    ForeignEndpoint {
        /// Which endpoint was asked for.
        endpoint: String,
    },
    /// The Host header names this server by a name that is not its own (DNS rebinding).
    #[error(
        "without keys this server answers only to localhost, 127.0.0.1 and [::1], not to the host '{host}'"
    )]
    ForeignHost {
        /// What it named.
        host: String,
    },
    /// A web page of somebody else's made the request.
    #[error(
        "pages of the origin '{origin}' may not call this server; list it in server.cors_origins to allow it"
    )]
    ForeignOrigin {
        /// Whose page.
        origin: String,
    },
}

impl Error {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unauthenticated { .. } => "unauthenticated",
            Error::MissingScope { .. } => "missing_scope",
            Error::ForeignEndpoint { .. } => "foreign_endpoint",
            Error::ForeignHost { .. } => "foreign_host",
            Error::ForeignOrigin { .. } => "foreign_origin",
        }
    }

    /// The HTTP status: 401 when another credential could help, else 403.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Error::MissingScope { .. }
            | Error::ForeignEndpoint { .. }
            | Error::ForeignHost { .. }
            | Error::ForeignOrigin { .. } => StatusCode::FORBIDDEN,
        }
    }
}

/// How a scope is written in configuration and messages.
pub fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Client => "client",
        Scope::Publish => "publish",
        Scope::Worker => "worker",
        Scope::Admin => "admin",
    }
}
