//! Whether the server may listen where it is told to.

use std::net::SocketAddr;

/// Refuses to listen where others can reach a server that has no keys.
///
/// `address` is the one that is really listened on (a socket may have been inherited).
///
/// # Errors
/// The text to print, with the exact lines to type.
pub fn check_listen(address: SocketAddr, has_keys: bool, insecure_no_auth: bool) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() || has_keys || insecure_no_auth {
        return Ok(());
    }
    Err(format!(
        "refusing to listen on {address} without keys: anyone who reaches it could run workflows here.\n\
         Make a key first, then start again:\n  \
         darkroom keys create --name app --scope client\n  \
         darkroom serve --listen {address}\n\
         Or stay on this machine:\n  \
         darkroom serve --listen 127.0.0.1:{port}\n\
         Or, on a network where everyone is trusted with everything: --insecure-no-auth",
        port = address.port()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_need_a_key() {
        let everywhere: SocketAddr = "0.0.0.0:8288".parse().unwrap();
        let refused = check_listen(everywhere, false, false).unwrap_err();
        assert!(refused.contains("darkroom keys create --name app"), "{refused}");
        assert!(
            refused.contains("darkroom serve --listen 0.0.0.0:8288"),
            "{refused}"
        );
        assert!(check_listen(everywhere, true, false).is_ok());
        assert!(check_listen(everywhere, false, true).is_ok());
        for loopback in ["127.0.0.1:0", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(check_listen(loopback.parse().unwrap(), false, false).is_ok());
        }
        assert!(check_listen("[::]:1".parse().unwrap(), false, false).is_err());
    }
}
