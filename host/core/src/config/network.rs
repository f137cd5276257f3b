//! Networks by address and prefix length (CIDR): whose word is taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The word for what never leaves this machine.
const LOOPBACK: &str = "loopback";

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// A list of networks, such as `["loopback", "10.0.0.0/8", "2001:db8::7"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Networks(Vec<Network>);

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let (network, address) = (u32::from(network), u32::from(address));
                (network ^ address).checked_shr(u32::from(32 - self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let (network, address) = (u128::from(network), u128::from(address));
                (network ^ address).checked_shr(u32::from(128 - self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn bits_max(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The network of so many bits that an address lies in.
    fn around(address: IpAddr, bits: u8) -> Option<IpAddr> {
        let mask = |shift: u32| u128::MAX.checked_shl(shift).unwrap_or(0);
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits.into())?).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = mask(128_u32.checked_sub(bits.into())?);
                Some(Ipv6Addr::from(u128::from(address) & mask).into())
            }
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let wrong = || format!("{text:?} is no address (10.0.0.7), network (10.0.0.0/8) or \"loopback\"");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = Self::bits_max(address);
        let bits = match bits {
            None => bits_max,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(wrong)?,
        };
        match Self::around(address, bits) {
            Some(network) if network != address => {
                Err(format!("{text:?} names an address inside a network: write {network}/{bits} or {address}"))
            }
            _ => Ok(Self { address, bits }),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bits == Self::bits_max(self.address) {
            write!(out, "{}", self.address)
        } else {
            write!(out, "{}/{}", self.address, self.bits)
        }
    }
}

impl Networks {
    /// What never leaves this machine.
    pub fn loopback() -> Self {
        Self(vec![
            Network { address: Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 },
            Network { address: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ])
    }

    /// Whether an address lies in one of them. An IPv4 address inside an IPv6 one counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for Networks {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        let mut networks = Vec::with_capacity(texts.len());
        for text in &texts {
            match text.as_str() {
                LOOPBACK => networks.extend(Self::loopback().0),
                text => networks.push(text.parse()?),
            }
        }
        Ok(Self(networks))
    }
}

impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Self {
        networks.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Result<Networks, String> {
        Networks::try_from(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_lies_in_a_network_or_not() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "loopback"]).unwrap();
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8:7::1", "127.8.9.1", "::1", "::ffff:10.0.0.1"] {
            assert!(some.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2", "128.0.0.1", "::ffff:11.0.0.1"] {
            assert!(!some.contains(outside.parse().unwrap()), "{outside}");
        }
        let all = networks(&["0.0.0.0/0"]).unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()) && !all.contains("2001:db8::1".parse().unwrap()));
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        let why = |text| networks(&[text]).unwrap_err();
        assert_eq!(why("10.0.0.5/8"), "\"10.0.0.5/8\" names an address inside a network: write 10.0.0.0/8 or 10.0.0.5");
        for wrong in ["10.0.0.0/33", "10.0.0/8", "proxy.example", "", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(why(wrong).contains("is no address"), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "loopback"]).unwrap();
        let texts: Vec<String> = some.clone().into();
        assert_eq!(texts, ["10.0.0.0/8", "192.0.2.7", "127.0.0.0/8", "::1"]);
        assert_eq!(Networks::try_from(texts), Ok(some));
    }
}
