//! Which addresses a server-side fetch may reach. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to the public internet: not loopback, private, link-local (which holds the clouds'
/// metadata services), shared, reserved, documentation, or multicast; IPv4 inside IPv6 counts as what it carries.
pub fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT, RFC 6598; some clouds' metadata too
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99) // 6to4 relays, RFC 7526
        || (a == 198 && (18..20).contains(&b)) // benchmarking, RFC 2544
        || ip == AZURE_PLATFORM
        || a >= 240)
}

/// A public address by its number, but the platform's own services to every virtual machine of Azure.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Only what is handed out as global unicast (2000::/3), and NAT64's well-known prefix for what it carries.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    match s {
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(tail_v4(s)),
        [0x2002, high, low, ..] => {
            is_public_v4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
        }
        // Teredo, benchmarking, ORCHID, and their like; documentation, old and new.
        [0x2001, low, ..] => low >= 0x0200 && low != 0x0db8,
        [0x3fff, low, ..] => low >= 0x1000,
        _ => s[0] & 0xe000 == 0x2000,
    }
}

fn tail_v4(s: [u16; 8]) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(s[6]) << 16) | u32::from(s[7]))
}

/// IPv4-mapped and IPv4-compatible IPv6 addresses as the IPv4 address that the kernel will really connect to.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            let compatible = s[..6].iter().all(|&x| x == 0) && (s[6] != 0 || s[7] > 1);
            v6.to_ipv4_mapped().map(IpAddr::V4).unwrap_or(if compatible {
                IpAddr::V4(tail_v4(s))
            } else {
                address
            })
        }
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for bad in [
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "168.63.129.16",
            "192.88.99.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fd00:ec2::254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "::ffff:0:8.8.8.8",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
            "fec0::1",
            "100::1",
            "2002:7f00:1::",
            "ff02::1",
        ] {
            assert!(!is_public(bad.parse().unwrap()), "{bad}");
        }
        for good in [
            "8.8.8.8",
            "1.1.1.1",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
        ] {
            assert!(is_public(good.parse().unwrap()), "{good}");
        }
    }
}
