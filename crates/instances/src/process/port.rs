//! A free port for an instance.

use std::{fs, net::TcpListener, ops::Range};

/// Below where kernels usually take the ports of outgoing connections from (32768), and above well-known services.
const FIRST: u16 = 20_000;
/// How many ports are tried.
const TRIES: u16 = 256;

/// A port of 127.0.0.1 that nobody listens on and that is not in `taken`.
///
/// It is outside the kernel's range for outgoing connections: a ComfyUI takes many seconds until it listens, and
/// meanwhile any connection of any program could get a port of that range. `seed` spreads the servers of one machine.
pub(super) fn free(seed: u64, taken: impl Fn(u16) -> bool) -> Option<u16> {
    let range = candidates();
    let count = u64::from(range.end - range.start);
    (0..u64::from(TRIES))
        .map(|step| range.start + u16::try_from((seed % count + step) % count).unwrap_or(0))
        .find(|port| !taken(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .or_else(|| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).ok()?;
            Some(listener.local_addr().ok()?.port())
        })
}

fn candidates() -> Range<u16> {
    let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_outgoing: u16 = outgoing
        .split_ascii_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(32_768);
    // An administrator who gave nearly all ports to outgoing connections gets a port of that range.
    if first_outgoing >= FIRST + 2 * TRIES {
        FIRST..first_outgoing
    } else {
        FIRST..u16::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_and_listening_ports_are_passed_over() {
        let first = free(7, |_| false).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", first)).unwrap();
        let second = free(7, |_| false).unwrap();
        assert_ne!(first, second);
        drop(listener);
        assert_ne!(free(7, |port| port == first).unwrap(), first);
    }

    #[test]
    fn any_seed_will_do() {
        for seed in [0, 1, u64::MAX] {
            assert!(free(seed, |_| false).is_some());
        }
    }
}
