//! The slot of a key, and the node of a slot. Uses no connection.

use std::collections::BTreeSet;

use redis::Value;

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// The slot of a key: of the text between its first brace and the next closing one, unless that is empty.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    CRC.checksum(hashed.as_bytes()) % SLOTS
}

/// The address of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::redis) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// `host:port`, as in MOVED and ASK. Without a host it is the host of the node that said so.
    pub(super) fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: if host.is_empty() { said_by } else { host }.to_owned(), port: port.parse().ok()? })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Consecutive slots, and their nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: Address,
    replicas: Vec<Address>,
}

/// The map of slots, as one node saw it. A hint, not the truth: a node without the slot says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    ranges: Vec<Range>,
}

impl SlotMap {
    /// From the reply of CLUSTER SLOTS by the node at `said_by`. `None` when the reply is something else.
    pub(super) fn of(reply: Value, said_by: &str) -> Option<Self> {
        let Value::Array(listed) = reply else { return None };
        let ranges = listed.into_iter().map(|range| range_of(range, said_by)).collect::<Option<_>>()?;
        Some(Self { ranges })
    }

    /// The master of a slot; `None` where no node has it.
    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        range.map(|range| &range.master)
    }

    /// The masters, in order.
    pub(super) fn masters(&self) -> BTreeSet<&Address> {
        self.ranges.iter().map(|range| &range.master).collect()
    }

    /// The replicas of a master, or of all; in order.
    pub(super) fn replicas(&self, of: Option<&Address>) -> BTreeSet<&Address> {
        let ranges = self.ranges.iter().filter(|range| of.is_none_or(|master| range.master == *master));
        ranges.flat_map(|range| &range.replicas).collect()
    }

    /// The number of slots of a master.
    pub(super) fn slots(&self, master: &Address) -> usize {
        let ranges = self.ranges.iter().filter(|range| range.master == *master);
        ranges.map(|range| usize::from(range.last - range.first) + 1).sum()
    }

    /// The same map, except for one slot, which now belongs to `master` according to its former master.
    pub(super) fn moved(&self, slot: u16, master: Address) -> Self {
        // Before the range that contained it: the first match counts.
        let replicas = self.replicas(Some(&master)).into_iter().cloned().collect();
        let mut ranges = vec![Range { first: slot, last: slot, master, replicas }];
        ranges.extend(self.ranges.iter().filter(|range| (range.first, range.last) != (slot, slot)).cloned());
        Self { ranges }
    }
}

/// First and last slot, master, replicas; a node: host, port, and fields that do not matter here.
fn range_of(range: Value, said_by: &str) -> Option<Range> {
    let Value::Array(parts) = range else { return None };
    let mut parts = parts.into_iter();
    let slot = |value| if let Value::Int(slot) = value { u16::try_from(slot).ok() } else { None };
    let (first, last) = (slot(parts.next()?)?, slot(parts.next()?)?);
    let mut nodes = parts.filter_map(|node| node_of(node, said_by));
    let master = nodes.next()?;
    (first <= last && last < SLOTS).then(|| Range { first, last, master, replicas: nodes.collect() })
}

fn node_of(node: Value, said_by: &str) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let mut parts = parts.into_iter();
    let host = match parts.next()? {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok()?,
        _ => String::new(),
    };
    let Value::Int(port) = parts.next()? else { return None };
    // `?` is a node whose address this one does not know.
    let host = if host.is_empty() || host == "?" { said_by.to_owned() } else { host };
    Some(Address { host, port: u16::try_from(port).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn reply(ranges: &[(i64, i64, &[i64])]) -> Value {
        let node = |port: &i64| Value::Array(vec![Value::BulkString(b"10.0.0.1".to_vec()), Value::Int(*port)]);
        let range = |(first, last, ports): &(i64, i64, &[i64])| {
            Value::Array([Value::Int(*first), Value::Int(*last)].into_iter().chain(ports.iter().map(node)).collect())
        };
        Value::Array(ranges.iter().map(range).collect())
    }

    #[test]
    fn slots_are_as_redis_says() {
        // As CLUSTER KEYSLOT answers.
        assert_eq!(slot_of("123456789"), 12_739);
        assert_eq!(slot_of("weir:{x}:a"), 16_287);
        assert_eq!(slot_of("weir:{x}:b"), slot_of("{x}"));
        assert_eq!(slot_of("foo{}{bar}"), CRC.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of("foo{{bar}}zap"), CRC.checksum(b"{bar") % SLOTS);
    }

    #[test]
    fn a_map_names_masters_and_replicas() {
        let map = SlotMap::of(reply(&[(0, 99, &[1, 4]), (100, 199, &[2]), (300, 300, &[1, 4])]), "said").unwrap();
        assert_eq!(
            [0, 99, 100, 200, 300].map(|slot| map.master(slot).map(|at| at.port)),
            [Some(1), Some(1), Some(2), None, Some(1)]
        );
        assert_eq!(map.masters(), [&address(1), &address(2)].into());
        assert_eq!((map.slots(&address(1)), map.slots(&address(2))), (101, 100));
        assert_eq!(map.replicas(Some(&address(1))), [&address(4)].into());
        assert!(map.replicas(Some(&address(2))).is_empty());
        let map = map.moved(50, address(2)).moved(50, address(3));
        assert_eq!([49, 50, 51].map(|slot| map.master(slot).unwrap().port), [1, 3, 1]);
        assert!(SlotMap::of(Value::Array(vec![Value::Int(1)]), "said").is_none());
        assert!(SlotMap::of(Value::Okay, "said").is_none());
    }

    #[test]
    fn a_node_without_a_host_is_where_the_answer_came_from() {
        assert_eq!(Address::parse(":7001", "10.0.0.1"), Some(address(7001)));
        assert_eq!(Address::parse("10.0.0.1:7001", "x"), Some(address(7001)));
        assert_eq!(Address::parse("::1:7001", "x"), Some(Address { host: "::1".into(), port: 7001 }));
        assert_eq!(Address::parse("10.0.0.1", "x"), None);
    }
}
