//! Addresses in the configuration: networks (`10.0.0.0/8`) and hosts.

use std::{net::IpAddr, str::FromStr};

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether `address` is in it. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                u64::from(network.to_bits()) >> shift == u64::from(address.to_bits()) >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| ())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| ())?,
            None => longest,
        };
        if bits > longest {
            Err(())
        } else {
            Ok(Cidr { network, bits })
        }
    }
}

/// An entry of `[fetch] allow`: a network, or a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOrCidr {
    /// Every address in this network.
    Net(Cidr),
    /// Whatever this name resolves to; lower case.
    Host(String),
}

impl FromStr for HostOrCidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(net) = text.parse() {
            return Ok(HostOrCidr::Net(net));
        }
        let host = text.to_ascii_lowercase();
        if is_host_name(&host) {
            Ok(HostOrCidr::Host(host))
        } else {
            Err(())
        }
    }
}

/// Whether a text is a host name without a port: `gpu-box`, `img.example.com`.
pub fn is_host_name(text: &str) -> bool {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    // `1.2.3.400` is a mistyped address, not a name: no top-level domain is a number.
    let last_is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|l| l.chars().all(|c| c.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label_ok) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let net: Cidr = "192.168.1.0/24".parse().unwrap();
        assert!(net.contains("192.168.1.77".parse().unwrap()));
        assert!(net.contains("::ffff:192.168.1.77".parse().unwrap()));
        assert!(!net.contains("192.168.2.1".parse().unwrap()));
        let everything: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("8.8.8.8".parse().unwrap()));
        let everything6: Cidr = "::/0".parse().unwrap();
        assert!(everything6.contains("fd00::1".parse().unwrap()));
        assert!(!everything6.contains("8.8.8.8".parse().unwrap()));
        let one: Cidr = "fd00::1".parse().unwrap();
        assert!(one.contains("fd00::1".parse().unwrap()) && !one.contains("fd00::2".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/-1",
            "http://x",
            "a b",
            "host:80",
            "1.2.3.400",
        ] {
            assert!(bad.parse::<HostOrCidr>().is_err(), "{bad}");
        }
        assert_eq!("Gpu-Box".parse(), Ok(HostOrCidr::Host("gpu-box".into())));
    }
}
