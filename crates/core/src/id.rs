//! Names and ids. Parsed once at the boundary; no raw string reaches SQL or a file path as an id.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::{name_type, shorten};

/// Where new ids come from; a seeded source in tests.
pub trait Ids: Send + Sync {
    /// A fresh time-ordered UUID (version 7).
    fn uuid_v7(&self) -> Uuid;
    /// A fresh random UUID (version 4), where a protocol wants an unguessable or opaque one.
    fn uuid_v4(&self) -> Uuid;
    /// Cryptographically random bytes, for secrets.
    fn fill(&self, bytes: &mut [u8]);
}

/// Why a text is not the name or id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a UUID.
    #[error("'{0}' is not a valid {1} id")]
    NotAnId(String, &'static str),
    /// Breaks the rule for names.
    #[error(
        "'{0}' is not a valid {1} name: use 1 to 63 letters, digits, '_', '.', '-', beginning with a letter or digit"
    )]
    BadName(String, &'static str),
    /// Collides with a path of the server.
    #[error("'{0}' is a reserved name")]
    Reserved(String),
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made by an [`Ids`] source or read back from a store.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            /// A fresh id.
            pub fn new(ids: &dyn Ids) -> Self {
                Self(ids.uuid_v7())
            }
            /// The UUID inside.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                // Only the hyphenated form is an id of ours: one spelling, one id.
                if text.len() != 36 {
                    return Err(Error::NotAnId(shorten(text), $what));
                }
                Uuid::try_parse(text).map(Self).map_err(|_| Error::NotAnId(shorten(text), $what))
            }
        }
    };
}

uuid_id!(
    /// A job: one request to an endpoint. Always a server-made UUIDv7.
    JobId, "job");
uuid_id!(
    /// One started ComfyUI or worker process, container, or pod.
    InstanceId, "instance");
uuid_id!(
    /// A file that a caller brought.
    AssetId, "asset");

name_type!(
    /// The name of an endpoint (`default`, `sdxl`).
    EndpointName,
    Error,
    |text| {
        check_name(text, "endpoint")?;
        match RESERVED_ENDPOINT_NAMES.contains(&text) {
            true => Err(Error::Reserved(text.to_owned())),
            false => Ok(()),
        }
    }
);
name_type!(
    /// Whom a key, a job, and a file belong to.
    TenantId,
    Error,
    |text| check_name(text, "tenant")
);
name_type!(
    /// A server of the cluster (not a node of a graph). One box: `local`.
    NodeName,
    Error,
    |text| check_name(text, "node")
);

/// First path segments of the server's own routes; an endpoint cannot have these names.
pub const RESERVED_ENDPOINT_NAMES: &[&str] = &[
    "e",
    "api",
    "v1",
    "v2",
    "scc",
    "openai",
    "darkroom",
    "dashboard",
    "userdata",
    "login",
    "metrics",
    "healthz",
    "readyz",
];

impl EndpointName {
    /// A name that no endpoint can have (the empty one): what an unparsable name in a request becomes, so that it
    /// meets the same "not found" as any other.
    pub fn no_such() -> Self {
        EndpointName("".into())
    }
}

impl TenantId {
    /// The tenant that all callers without a key share where keys are configured.
    pub const ANONYMOUS: &str = "anonymous";

    /// Whose everything is that nobody says otherwise of.
    pub fn default_tenant() -> TenantId {
        "default".parse().expect("'default' is a name")
    }

    /// Whether it is that one.
    pub fn is_anonymous(&self) -> bool {
        self.as_str() == Self::ANONYMOUS
    }
}

fn check_name(text: &str, what: &'static str) -> Result<(), Error> {
    let mut chars = text.chars();
    let first_ok = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest_ok = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first_ok && rest_ok && text.len() <= 63 {
        Ok(())
    } else {
        Err(Error::BadName(shorten(text), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_names_follow_the_rule() {
        for good in ["default", "sdxl", "A.b-c_9", "0"] {
            assert!(good.parse::<EndpointName>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "ü", "api", "e", &"x".repeat(64)] {
            assert!(bad.parse::<EndpointName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let text = "01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d";
        let id: JobId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert!("01998f2e7e2f7c3a8a523f1d7a1b2c3d".parse::<JobId>().is_err());
        assert!("{01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d}".parse::<JobId>().is_err());
    }
}
