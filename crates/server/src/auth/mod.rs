//! Who calls, and what they may do.
//!
//! A handler takes [`Caller`] and asks `caller.may(Scope::Client, &endpoint)?`; the state behind it is [`AuthState`],
//! whose [`Keyring`] is swapped when keys or endpoints change. Nothing here knows jobs: that a foreign job is "not
//! found" is the service's rule, by [`Caller::tenant`].

mod caller;
mod credential;
mod error;
mod keyring;
mod lasting;
mod listen;
pub mod login;
mod mint;
mod origin;
mod server_key;
mod sessions;
pub mod signed;
mod state;

#[cfg(test)]
pub mod tests;

pub use darkroom_store::access::Scope;

pub use self::{
    caller::{Caller, Rejection, auth_error_response},
    credential::SESSION_COOKIE,
    error::{Error, scope_name},
    keyring::{AnonymousUse, Grant, Key, KeyHash, Keyring, hash_key},
    lasting::{Lasting, end_streams},
    listen::check_listen,
    mint::{MintedApp, NewKey, mint, mint_app},
    origin::is_loopback_authority,
    server_key::{ServerKey, ServerKeyError},
    sessions::{LINK_LIFETIME, SESSION_LIFETIME},
    state::{AppCaller, AppError, AuthState, Rules},
};
