//! The nodes of a cluster: each call goes to the node that has its slot, and after a "not here" or "not now" to the node that the
//! answer or the map names next.
//!
//! Only calls of which a node said that nothing ran are sent again, and only until the time for an answer is over: a call that
//! was sent and not answered has an unknown outcome, as on one server. Each call is of one slot, so a lost node fails its own
//! slots only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use metrics::counter;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::node::{Failure, Node};
use super::slots::{Address, SLOTS, SlotMap, slot_of};
use super::{Call, Nature, Scripts, Settings, server, wrong};
use crate::redis::ownership::Way;
use crate::redis::server::{Facts, Refusal, Topology};
use crate::{Durability, NodeStatus, StoreError};
use weir_core::telemetry;

/// Backoff before a call is sent again. The first retry is immediate.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The map is refreshed at most once in this time.
const REFRESH_GAP: Duration = Duration::from_millis(50);

pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    settings: Arc<Settings>,
    scripts: Arc<Scripts>,
    map: RwLock<Arc<SlotMap>>,
    nodes: RwLock<BTreeMap<Address, Arc<Node>>>,
    /// Held during a refresh of the map; the time of the last one.
    refreshed: Mutex<Option<Instant>>,
    /// The record of the owner was checked.
    is_checked: AtomicBool,
}

impl Cluster {
    pub(super) fn new(
        seeds: Vec<ConnectionInfo>,
        settings: Arc<Settings>,
        scripts: Arc<Scripts>,
    ) -> Result<Self, StoreError> {
        if seeds.iter().any(|seed| address_of(seed).is_none() || seed.redis_settings().db() != 0) {
            return Err(wrong("a cluster has host, port, and database 0 only"));
        }
        Ok(Self {
            seeds,
            settings,
            scripts,
            map: RwLock::new(Arc::new(SlotMap::default())),
            nodes: RwLock::new(BTreeMap::new()),
            refreshed: Mutex::new(None),
            is_checked: AtomicBool::new(false),
        })
    }

    fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_map(&self, map: SlotMap) {
        // Drops the nodes that left the cluster, with their connections.
        let known: BTreeSet<&Address> = map.masters().into_iter().chain(map.replicas(None)).collect();
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).retain(|address, _| known.contains(address));
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(address) {
            return Arc::clone(node);
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let at = ConnectionAddr::Tcp(address.host.clone(), address.port);
            // With the first seed's user and password; the opener decides on encryption.
            let info = self.seeds[0].clone().set_addr(at);
            Arc::new(Node::new(info, Arc::clone(&self.settings), Arc::clone(&self.scripts)))
        };
        Arc::clone(nodes.entry(address.clone()).or_insert_with(made))
    }

    fn seed_addresses(&self) -> impl Iterator<Item = Address> {
        self.seeds.iter().filter_map(address_of)
    }

    /// Asks all nodes for the map, and takes the first answer; skips `except`, which has just proved that it is outdated. A
    /// caller whose map was replaced meanwhile already has a new one.
    async fn refresh(&self, seen: &Arc<SlotMap>, except: Option<&Address>) -> Result<(), StoreError> {
        let mut refreshed = self.refreshed.lock().await;
        if !Arc::ptr_eq(seen, &self.map()) || refreshed.is_some_and(|at| at.elapsed() < REFRESH_GAP) {
            return Ok(());
        }
        let mut known: BTreeSet<Address> = seen.masters().into_iter().chain(seen.replicas(None)).cloned().collect();
        known.extend(self.seed_addresses());
        if known.len() > 1 {
            known.retain(|address| Some(address) != except);
        }
        let answers = known.into_iter().map(|address| {
            Box::pin(async move {
                let reply = self.node(&address).slots().await?;
                let map = SlotMap::of(reply, &address.host).filter(|map| !map.masters().is_empty());
                map.ok_or_else(|| StoreError::Unavailable(format!("{address}: no node of the cluster has a slot")))
            })
        });
        let found = select_ok(answers).await;
        *refreshed = Some(Instant::now());
        let (map, _) = found?;
        if map != **seen {
            tracing::info!(nodes = %describe(&map), "the cluster's slots");
            self.set_map(map);
        }
        Ok(())
    }

    /// Ensures that there is a map, and that the data in the cluster is ours.
    async fn ready(&self) -> Result<(), StoreError> {
        if self.is_checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let map = self.map();
        if map.masters().is_empty() {
            self.refresh(&map, None).await?;
        }
        if self.settings.is_watched {
            self.check_record(None).await?;
        }
        self.is_checked.store(true, Ordering::Release);
        Ok(())
    }

    /// Connects to all nodes. Fails when no slot can be served, or a node would break a promise.
    pub(super) async fn ensure(&self) -> Result<(), StoreError> {
        self.ready().await?;
        for (_, _, facts) in self.learn().await {
            if let Err(error @ StoreError::Misconfigured(_)) = facts {
                return Err(error);
            }
        }
        Ok(())
    }

    /// See [`super::Link::check_record`].
    pub(super) async fn check_record(&self, kind: Option<&str>) -> Result<(), StoreError> {
        self.settings.guard.check(&mut OnCluster(self), kind).await.map_err(Refusal::into_error)
    }

    /// Sends a call to the master at this index of the map, if there is one.
    pub(super) async fn on_master(&self, place: usize, call: &Call<'_>) -> Result<Option<Value>, StoreError> {
        self.ready().await?;
        let map = self.map();
        let Some(master) = map.masters().into_iter().nth(place) else { return Ok(None) };
        self.node(master).call(call, false).await.map(Some).map_err(Failure::into_error)
    }

    /// Sends a call to the node that has `slot`.
    pub(super) async fn run(&self, slot: u16, call: &Call<'_>) -> Result<Value, StoreError> {
        self.ready().await?;
        self.route(slot, call).await
    }

    async fn route(&self, slot: u16, call: &Call<'_>) -> Result<Value, StoreError> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut pause = Duration::ZERO;
        loop {
            let map = self.map();
            let Some(master) = map.master(slot) else {
                self.refresh(&map, None).await?;
                if self.map().master(slot).is_none() {
                    return Err(StoreError::Unavailable(format!("no node of the cluster has slot {slot}")));
                }
                continue;
            };
            let failure = match self.at(master, call).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let cause = failure.cause();
            let reason = match failure {
                Failure::Store(error) => return Err(error),
                Failure::Moved(to) => {
                    self.follow(&map, slot, &to).await;
                    format!("slot {slot} has moved to {to}")
                }
                Failure::Asked(to) => format!("slot {slot} is on its way to {to}"),
                Failure::OnTheWay(reason) => reason,
                Failure::Away(reason) => {
                    self.refresh(&map, Some(master)).await?;
                    if self.map().master(slot) == Some(master) {
                        // No node has replaced it yet: the caller may retry.
                        return Err(StoreError::Unavailable(reason));
                    }
                    reason
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(StoreError::Unavailable(reason));
            }
            counter!(telemetry::STORE_RESENT_TOTAL, "cause" => cause).increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    /// Sends a call to a node, and from there to the node that the slot moves to, if the key is already there.
    async fn at(&self, master: &Address, call: &Call<'_>) -> Result<Value, Failure> {
        match self.node(master).call(call, false).await {
            Err(Failure::Asked(to)) => self.node(&to).call(call, true).await,
            answer => answer,
        }
    }

    /// A node says that another one has the slot, so the map is old. If the other nodes do not know that yet, this node is
    /// believed.
    async fn follow(&self, seen: &Arc<SlotMap>, slot: u16, to: &Address) {
        // Without an answer this node's word is all there is.
        let _ = self.refresh(seen, seen.master(slot)).await;
        let map = self.map();
        if map.master(slot) == seen.master(slot) && map.master(slot) != Some(to) {
            self.set_map(map.moved(slot, to.clone()));
        }
    }

    /// Whether any slot can be served: a lost node concerns its own slots, not the host.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.ready().await?;
        let map = self.map();
        let answers = map.masters().into_iter().map(|master| {
            let node = self.node(master);
            Box::pin(async move { node.ping().await })
        });
        select_ok(answers).await.map(|_| ())
    }

    /// The present status of all nodes of the map; whether each is a master.
    async fn learn(&self) -> Vec<(Address, bool, Result<Facts, StoreError>)> {
        let map = self.map();
        // Without an answer use the old map.
        let _ = self.refresh(&map, None).await;
        let map = self.map();
        let masters = map.masters();
        let replicas = map.replicas(None).into_iter().filter(|replica| !masters.contains(replica));
        let all =
            masters.iter().copied().map(|address| (address, true)).chain(replicas.map(|address| (address, false)));
        join_all(
            all.map(
                |(address, is_master)| async move { (address.clone(), is_master, self.node(address).learn().await) },
            ),
        )
        .await
    }

    /// See [`super::Link::nodes`].
    pub(super) async fn nodes(&self) -> Vec<NodeStatus> {
        let learned = self.learn().await;
        let map = self.map();
        let covered: usize = map.masters().into_iter().map(|master| map.slots(master)).sum();
        let mut nodes: Vec<NodeStatus> = learned
            .into_iter()
            .map(|(address, is_master, facts)| {
                let place = if is_master {
                    format!("master of {} slots, {} replicas", map.slots(&address), map.replicas(Some(&address)).len())
                } else {
                    "replica".to_owned()
                };
                // A node that is down must not take hosts out of service that serve the other slots.
                let (fit, detail) = match facts {
                    Ok(facts) => (true, facts.describe()),
                    Err(StoreError::Misconfigured(reason)) => (false, reason),
                    Err(error) => (true, format!("away: {error}")),
                };
                NodeStatus { name: address.to_string(), fit, detail: format!("{place}; {detail}") }
            })
            .collect();
        if covered < usize::from(SLOTS) {
            let lost = usize::from(SLOTS) - covered;
            nodes.push(NodeStatus { name: "slots".into(), fit: true, detail: format!("{lost} slots are on no node") });
        }
        nodes
    }

    pub(super) fn durability(&self) -> Durability {
        let map = self.map();
        let (masters, replicas) = (map.masters(), map.replicas(None).len());
        let facts: Vec<Facts> = masters.iter().filter_map(|master| self.node(master).facts()).collect();
        let fewest = masters.iter().map(|master| map.replicas(Some(master)).len()).min().unwrap_or(0);
        let topology = Topology { masters: masters.len(), replicas, fewest };
        server::durability(&facts, self.settings.replicas_min, Some(topology))
    }
}

fn address_of(seed: &ConnectionInfo) -> Option<Address> {
    match seed.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

/// Sends commands to the node of their keys.
struct OnCluster<'a>(&'a Cluster);

impl Way for OnCluster<'_> {
    async fn ask(&mut self, key: &str, command: Cmd, nature: Nature) -> Result<Value, Refusal> {
        self.0.route(slot_of(key), &Call { command, script: None, nature }).await.map_err(Refusal::Store)
    }
}

fn describe(map: &SlotMap) -> String {
    let of = |master: &Address| {
        let replicas: Vec<String> = map.replicas(Some(master)).iter().map(|replica| replica.port.to_string()).collect();
        format!("{master} {} slots, replicas at [{}]", map.slots(master), replicas.join(" "))
    };
    map.masters().into_iter().map(of).collect::<Vec<_>>().join("; ")
}
