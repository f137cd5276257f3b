//! Addresses to listen on, as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Deserializer};

/// Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` (127.0.0.1), `:8080` (all IPv4 addresses of this machine), or a name
/// of this machine, which is looked up: the first IPv4 address is taken, or the first.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || format!("{text:?} is no address: write 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    match host {
        "" | "*" => Ok((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()),
        // Without a look-up (RFC 6761, 6.3): it is not for a resolver to say where this machine is.
        "localhost" => Ok((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()),
        name if name.contains([':', '/', '@', ' ']) => Err(wrong()),
        name => {
            let found: Vec<SocketAddr> =
                (name, port).to_socket_addrs().map_err(|error| format!("{text:?}: {name}: {error}"))?.collect();
            let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
            first.copied().ok_or_else(|| format!("{text:?}: {name} has no address"))
        }
    }
}

/// A listener's address in a configuration.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_people_write() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            (":8080", "0.0.0.0:8080"),
            ("*:0", "0.0.0.0:0"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), expected, "{text}");
        }
        for wrong in ["", "8080", "localhost", "localhost:", "localhost:99999", "http://localhost:80", "::1:80"] {
            let said = listen_address(wrong).map(|address| address.to_string());
            assert!(said.is_err(), "{wrong}: {said:?}");
        }
    }
}
