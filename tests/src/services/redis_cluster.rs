//! A Redis Cluster of our own: masters, each with its replicas, on free loopback ports; failover and slot migration.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AppendFsync, Redis, RedisOptions, START_TIMEOUT, free_port, wait_until};
use crate::certificates::Pair;

/// Masters at the start.
const MASTERS: usize = 3;
/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// After this time Redis gives up an agreed failover.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys that are moved at once.
const KEYS_AT_ONCE: &str = "100";

/// How the nodes are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The append-only file of each node.
    pub append_fsync: AppendFsync,
    /// Replicas of each master.
    pub replicas: usize,
    /// After this time without a sign a node is taken for failed, in milliseconds.
    pub node_timeout_ms: u32,
    /// TLS between the nodes, and for clients on a port of its own.
    pub certificate: Option<Pair>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { append_fsync: AppendFsync::Always, replicas: 1, node_timeout_ms: 2_000, certificate: None }
    }
}

/// A cluster. Nodes are known by their number: first the masters of the start, then the replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
    ids: Vec<String>,
}

impl RedisCluster {
    /// Starts one and waits until all nodes say that it is well and all replicas follow.
    pub fn start(options: &ClusterOptions) -> Self {
        let node = |_| {
            let more = [
                ["--cluster-enabled", "yes"].map(str::to_owned),
                ["--cluster-node-timeout".to_owned(), options.node_timeout_ms.to_string()],
                ["--cluster-port".to_owned(), free_port().to_string()],
                // A shard that is down is its own trouble.
                ["--cluster-require-full-coverage", "no"].map(str::to_owned),
                ["--repl-ping-replica-period", "1"].map(str::to_owned),
                ["--repl-diskless-sync-delay", "0"].map(str::to_owned),
            ];
            let mut more: Vec<String> = more.into_iter().flatten().collect();
            if options.certificate.is_some() {
                more.extend(["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned));
            }
            let (append_fsync, certificate) = (options.append_fsync, options.certificate.clone());
            Redis::prepare(RedisOptions { append_fsync, certificate, more, ..RedisOptions::default() })
        };
        let nodes: Vec<Redis> = (0..MASTERS * (1 + options.replicas)).map(node).collect();
        let mut cluster = Self { nodes, ids: Vec::new() };
        cluster.nodes.iter_mut().for_each(Redis::spawn);
        cluster.nodes.iter_mut().for_each(Redis::wait_ready);
        cluster.ids = cluster.nodes.iter().map(|node| node.command(&["CLUSTER", "MYID"])).collect();
        cluster.join();
        cluster.wait_well();
        cluster
    }

    /// What `redis-cli --cluster create` does.
    fn join(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < MASTERS {
                let (first, last) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS - 1);
                node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
        }
        let first = &self.nodes[0];
        let bus = |node: &Redis| {
            let ports: Vec<String> = node.command(&["CONFIG", "GET", "cluster-port"]);
            ports[1].clone()
        };
        for node in &self.nodes[1..] {
            first.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus(node)]);
        }
        for (number, replica) in self.nodes.iter().enumerate().skip(MASTERS) {
            let master = &self.ids[number % MASTERS];
            // Refused as long as it has not heard of the master.
            let replicate = ["CLUSTER", "REPLICATE", master];
            assert!(
                wait_until(START_TIMEOUT, || replica.try_command::<()>(&replicate).is_ok()),
                "node {number} does not become a replica"
            );
        }
    }

    /// URL of the nodes that were masters at the start.
    pub fn url(&self) -> String {
        let seeds: Vec<String> =
            self.nodes[..MASTERS].iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis://{}", seeds.join(","))
    }

    /// The same over TLS.
    pub fn tls_url(&self) -> String {
        self.nodes[..MASTERS].iter().map(Redis::tls_url).collect::<Vec<_>>().join(",")
    }

    /// The URL of each node that was a master at the start.
    pub fn seeds(&self) -> Vec<String> {
        self.nodes[..MASTERS].iter().map(Redis::url).collect()
    }

    /// The number of the master that had a slot at the start.
    pub fn first_master_of(slot: usize) -> usize {
        (0..MASTERS).find(|number| slot < SLOTS * (number + 1) / MASTERS).unwrap_or(MASTERS - 1)
    }

    /// A node.
    pub fn node(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number]
    }

    /// Numbers of the nodes.
    pub fn nodes(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// Waits until every running node says that the cluster is well, and follows or is followed.
    pub fn wait_well(&self) {
        let is_well = |node: &Redis| {
            let info: String = node.try_command(&["CLUSTER", "INFO"]).unwrap_or_default();
            let replication: String = node.try_command(&["INFO", "replication"]).unwrap_or_default();
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_slots_ok:{SLOTS}"))
                && info.contains(&format!("cluster_known_nodes:{}", self.nodes.len()))
                && (replication.contains("role:master") || replication.contains("master_link_status:up"))
        };
        let running = || self.nodes.iter().filter(|node| node.is_running());
        let all_agree = || {
            // The map that a host asks for must name all of them, too.
            let maps: Vec<BTreeMap<usize, usize>> =
                self.nodes().filter(|&n| self.nodes[n].is_running()).map(|n| self.map_of(n)).collect();
            maps.windows(2).all(|pair| pair[0] == pair[1]) && self.replicas_are_listed(running().count())
        };
        let done = wait_until(START_TIMEOUT, || running().all(is_well) && all_agree());
        assert!(done, "the cluster does not get well: {}", self.nodes[0].command::<String>(&["CLUSTER", "NODES"]));
    }

    /// Whether CLUSTER SLOTS of a running node names as many nodes as there are.
    fn replicas_are_listed(&self, running: usize) -> bool {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a running node");
        let ranges: Vec<redis::Value> = node.try_command(&["CLUSTER", "SLOTS"]).unwrap_or_default();
        let mut ports = std::collections::BTreeSet::new();
        for range in ranges {
            let redis::Value::Array(parts) = range else { return false };
            for part in parts.into_iter().skip(2) {
                if let redis::Value::Array(fields) = part
                    && let Some(redis::Value::Int(port)) = fields.get(1)
                {
                    ports.insert(*port);
                }
            }
        }
        ports.len() >= running
    }

    /// First slot of each range, and the number of its master, as node `number` sees it.
    fn map_of(&self, number: usize) -> BTreeMap<usize, usize> {
        let text: String = self.nodes[number].try_command(&["CLUSTER", "NODES"]).unwrap_or_default();
        let mut map = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            let id = words.next().unwrap_or_default();
            let Some(master) = self.ids.iter().position(|known| known == id) else { continue };
            for range in words.skip(7).filter(|range| !range.starts_with('[')) {
                let first = range.split('-').next().and_then(|first| first.parse().ok());
                map.extend(first.map(|first| (first, master)));
            }
        }
        map
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> usize {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a running node");
        node.command(&["CLUSTER", "KEYSLOT", key])
    }

    /// The number of the master of a slot, as most running nodes see it.
    pub fn master_of(&self, slot: usize) -> usize {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for number in self.nodes().filter(|&number| self.nodes[number].is_running()) {
            if let Some((_, &master)) = self.map_of(number).range(..=slot).next_back() {
                *votes.entry(master).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).expect("a node that knows").0
    }

    /// Numbers of the nodes that are masters now, each with its replicas that run.
    pub fn masters(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut masters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for number in self.nodes().filter(|&number| self.nodes[number].is_running()) {
            let info: String = self.nodes[number].try_command(&["INFO", "replication"]).unwrap_or_default();
            let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
            match field("role") {
                Some("master") => drop(masters.entry(number).or_default()),
                Some("slave") => {
                    let port = field("master_port").and_then(|port| port.parse::<u16>().ok());
                    let master = self.nodes().find(|&n| port.is_some_and(|port| self.nodes[n].has_port(port)));
                    masters.entry(master.expect("a master of ours")).or_default().push(number);
                }
                _ => {}
            }
        }
        masters
    }

    /// The running replica of a master, once it follows.
    pub fn replica_of(&self, master: usize) -> usize {
        let mut found = None;
        let done = wait_until(START_TIMEOUT, || {
            found = self.masters().get(&master).and_then(|replicas| replicas.first().copied());
            found.is_some()
        });
        assert!(done, "node {master} has no replica");
        found.expect("found above")
    }

    /// Runs a command on the master of a key.
    pub fn command<T: redis::FromRedisValue>(&self, key: &str, words: &[&str]) -> T {
        self.nodes[self.master_of(self.slot_of(key))].command(words)
    }

    /// All data is lost, on every node.
    pub fn flush_all(&self) {
        for master in self.masters().into_keys() {
            self.nodes[master].command::<()>(&["FLUSHALL"]);
        }
    }

    /// Ends all nodes with SIGKILL, starts them again, and waits until the cluster is well.
    pub fn restart(&mut self) {
        self.nodes.iter_mut().for_each(Redis::kill);
        self.nodes.iter_mut().for_each(Redis::spawn);
        self.nodes.iter_mut().for_each(Redis::wait_ready);
        self.wait_well();
    }

    /// Ends a master with SIGKILL and waits until its replica has taken its place; the number of that.
    pub fn kill_and_wait_for_failover(&mut self, master: usize) -> usize {
        let replica = self.replica_of(master);
        self.nodes[master].kill();
        self.wait_master(replica);
        replica
    }

    /// Makes a replica the master, in agreement with the master that it follows (`CLUSTER FAILOVER`).
    pub fn fail_over(&self, replica: usize) {
        // Refused while a failover is under way, and given up when the others do not vote in time: a master gets one vote in
        // twice the node timeout.
        let done = wait_until(START_TIMEOUT, || {
            let _ = self.nodes[replica].try_command::<()>(&["CLUSTER", "FAILOVER"]);
            wait_until(FAILOVER_TIMEOUT, || self.is_master(replica))
        });
        assert!(done, "node {replica} does not become a master");
    }

    fn wait_master(&self, number: usize) {
        assert!(wait_until(START_TIMEOUT, || self.is_master(number)), "node {number} does not become a master");
    }

    fn is_master(&self, number: usize) -> bool {
        let role: Vec<redis::Value> = self.nodes[number].try_command(&["ROLE"]).unwrap_or_default();
        matches!(role.first(), Some(redis::Value::BulkString(role)) if role == b"master")
    }

    /// Moves a slot to another master, key by key, as `redis-cli --cluster reshard` does; `pause` between two steps.
    pub fn move_slot(&self, slot: usize, to: usize, pause: Duration) {
        let from = self.master_of(slot);
        self.begin_move(slot, from, to);
        std::thread::sleep(pause);
        while self.move_keys(slot, (from, to), KEYS_AT_ONCE) > 0 {
            std::thread::sleep(pause);
        }
        self.end_move(slot, from, to);
    }

    /// The slot begins to leave `from` for `to`.
    pub fn begin_move(&self, slot: usize, from: usize, to: usize) {
        let text = slot.to_string();
        self.nodes[to].command::<()>(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &self.ids[from]]);
        self.nodes[from].command::<()>(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &self.ids[to]]);
    }

    /// Some keys of a slot that leaves go; how many.
    pub fn move_keys(&self, slot: usize, (from, to): (usize, usize), at_most: &str) -> usize {
        let keys: Vec<String> = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), at_most]);
        if keys.is_empty() {
            return 0;
        }
        let port = self.nodes[to].port().to_string();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        self.nodes[from].command::<()>(&words);
        keys.len()
    }

    /// The slot has arrived.
    pub fn end_move(&self, slot: usize, from: usize, to: usize) {
        for node in [to, from] {
            self.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &self.ids[to]]);
        }
    }
}
