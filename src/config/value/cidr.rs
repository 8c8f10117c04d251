use std::net::IpAddr;

use ipnet::IpNet;

use super::Refusal;

/// "10.0.0.0/8", "2001:db8::/32", or one address.
pub(crate) fn cidr(text: &str) -> Result<IpNet, Refusal> {
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok(),
    };
    let net = parsed.ok_or_else(|| {
        Refusal::new(
            format!("`{text}` is not a network"),
            "write an address and the bits that count, \"10.0.0.0/8\" or \"2001:db8::/32\", or one address",
        )
    })?;
    if let IpNet::V6(six) = net
        && let Some(four) = six.addr().to_ipv4_mapped()
    {
        let bits = six.prefix_len().saturating_sub(96);
        return Err(Refusal::new(
            format!("`{text}` is an IPv4 network in IPv6 clothes"),
            format!("write \"{four}/{bits}\""),
        ));
    }
    if net.addr() != net.network() {
        return Err(Refusal::new(
            format!(
                "`{text}` has bits set behind its first {}",
                net.prefix_len()
            ),
            format!(
                "write \"{}\" for the network, or the address alone",
                net.trunc()
            ),
        ));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(cidr(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_network_with_bits_of_a_host_is_refused_with_the_network_to_write() {
        let refusal = cidr("10.1.2.3/8").unwrap_err();
        assert!(refusal.cure.contains("\"10.0.0.0/8\""), "{refusal:?}");
        let refusal = cidr("2001:db8::1/64").unwrap_err();
        assert!(refusal.cure.contains("\"2001:db8::/64\""), "{refusal:?}");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "localhost",
            "::/129",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
        ] {
            assert!(cidr(text).is_err(), "{text}");
        }
    }
}
