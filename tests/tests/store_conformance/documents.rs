//! Creates: all of a request or nothing, what exists, who owns what waits, how long it is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;
use weir::model::{Backlog, Change, Document, DocumentChange, Id, Partition};
use weir::store::{
    CreateBatch, CreateOp, CreateResult, Created, Hydrated, Idempotency, LoadedState, PendingDocument, ReadResult,
    StoreError, TargetLoad,
};

use crate::stand::{Backend, DIGEST, KIND, START_MS, Stand};

fn body(id: i64) -> Arc<str> {
    Arc::from(format!("{{\"id\":{id},\"title\":\"α \\\" \u{1f680}\"}}"))
}

fn document(id: i64, actor: i64) -> Document {
    Document { id: Id::Int(id), actor: Id::Int(actor), body: body(id) }
}

/// Documents of one actor, whose ids come from outside.
pub fn create(partition: Partition, ids: &[i64]) -> CreateOp {
    let documents = ids.iter().map(|&id| document(id, 7)).collect();
    CreateOp { partition, documents, has_fresh_ids: false, idempotency: None }
}

/// Documents whose ids were just made.
fn fresh(partition: Partition, ids: &[i64], actor: i64) -> CreateOp {
    let documents = ids.iter().map(|&id| document(id, actor)).collect();
    CreateOp { partition, documents, has_fresh_ids: true, idempotency: None }
}

fn keyed(op: CreateOp, key: u8, fingerprint: u8) -> CreateOp {
    CreateOp { idempotency: Some(Idempotency { key: [key; 16], fingerprint: [fingerprint; 16] }), ..op }
}

fn created(result: &CreateResult) -> Created {
    match result {
        CreateResult::Done(created) => *created,
        other => panic!("not created: {other:?}"),
    }
}

fn ids(ids: &[i64]) -> Vec<Id> {
    ids.iter().map(|&id| Id::Int(id)).collect()
}

impl<B: Backend> Stand<B> {
    pub async fn creates(&self, ops: Vec<CreateOp>) -> Vec<CreateResult> {
        let batch = CreateBatch { digest: DIGEST, at_ms: self.now_ms(), now_ms: self.now_ms(), ops };
        self.store().create(KIND, batch).await.unwrap().results
    }

    pub async fn create(&self, op: CreateOp) -> CreateResult {
        self.creates(vec![op]).await.remove(0)
    }

    /// What waits of these, in partition 0.
    pub async fn waiting(&self, ids: &[i64]) -> Vec<Option<PendingDocument>> {
        let asked: Vec<(Partition, Id)> = ids.iter().map(|&id| (0, Id::Int(id))).collect();
        self.store().documents(KIND, &asked).await.unwrap()
    }

    /// Which of these wait, in partition 0.
    async fn waits(&self, ids: &[i64]) -> Vec<bool> {
        self.waiting(ids).await.iter().map(Option::is_some).collect()
    }

    async fn owned(&self, actor: i64, limit: usize) -> Vec<Id> {
        let owned = self.store().documents_of(KIND, &Id::Int(actor), limit).await.unwrap();
        owned.into_iter().map(|document| document.id).collect()
    }

    /// What SQL says of ids, as of the checkpoint at `flushed` of partition 0.
    pub async fn load_ids(&self, ids: &[i64], state: LoadedState) -> Hydrated {
        let loads = ids.iter().map(|&id| TargetLoad { target: Id::Int(id), state: state.clone() }).collect();
        self.hydrate(0, loads, vec![]).await
    }

    /// Writes all that waits into `sql` and trims it; `refused` goes to the dead letters.
    pub async fn flush_documents(&self, sql: &mut BTreeSet<Id>, partition: Partition, refused: &[i64]) {
        let head = self.head(partition).await;
        let records = self.records(partition, 100).await;
        let Some((last, _)) = records.last().cloned() else { return };
        let touched: Vec<Id> = records.iter().map(|(_, change)| change.target().clone()).collect();
        let refused = ids(refused);
        for id in touched.iter().filter(|id| !refused.contains(id)) {
            assert!(sql.insert(id.clone()), "{id} comes twice");
        }
        self.store().trim(KIND, partition, head.incarnation, last, &touched, &refused).await.unwrap();
    }
}

pub async fn a_document_waits_until_it_is_flushed<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    assert_eq!(stand.waiting(&[]).await, vec![]);
    assert_eq!(stand.waiting(&[1]).await, vec![None]);
    assert_eq!(stand.owned(7, 10).await, vec![]);
    let batch =
        CreateBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops: vec![fresh(0, &[1, 2], 7)] };
    let commit = stand.store().create(KIND, batch).await.unwrap();
    let created = created(&commit.results[0]);
    assert_eq!((created.at_ms, created.replayed), (START_MS, false));
    assert_eq!(commit.heads, vec![stand.head(0).await]);
    assert_eq!(created.position, commit.heads[0].last);
    let waiting = |id: i64| PendingDocument {
        id: Id::Int(id),
        actor: Id::Int(7),
        body: body(id),
        at_ms: START_MS,
        partition: 0,
        position: created.position,
    };
    assert_eq!(stand.waiting(&[2, 3, 1, 2]).await, vec![Some(waiting(2)), None, Some(waiting(1)), Some(waiting(2))]);
    let other = stand.store().documents(KIND, &[(1, Id::Int(1)), (0, Id::Int(1))]).await.unwrap();
    assert_eq!(other, vec![None, Some(waiting(1))], "index-aligned, each in its partition");
    assert_eq!(stand.store().documents_of(KIND, &Id::Int(7), 9).await.unwrap(), vec![waiting(2), waiting(1)]);
    let pair = [(Id::Int(1), None)];
    assert_eq!(stand.store().read(KIND, stand.now_ms(), &pair).await.unwrap(), vec![ReadResult::TargetNotLoaded]);
    let change = |id: i64| {
        let change = DocumentChange { id: Id::Int(id), actor: Id::Int(7), body: body(id) };
        (created.position, Change::Document(change))
    };
    assert_eq!(stand.records(0, 1).await, vec![change(1), change(2)]);
    assert!(stand.entries(0, 1).await.iter().all(|entry| entry.at_ms == START_MS));
    let size = |id: i64| 1 + 9 + 9 + 4 + body(id).len() as u64;
    let backlog = Backlog { entries: 2, targets: 2, bytes: 41 + 24 + size(1) + size(2), oldest_at_ms: Some(START_MS) };
    assert_eq!(stand.head(0).await.backlog, backlog);
    stand.flush_documents(&mut BTreeSet::new(), 0, &[]).await;
    assert_eq!(stand.waits(&[1, 2]).await, [false, false]);
    assert_eq!(stand.owned(7, 10).await, vec![]);
    assert_eq!(stand.head(0).await.backlog, Backlog::default());
    assert_eq!(stand.creates(vec![]).await, vec![]);
}

pub async fn a_request_is_accepted_whole_or_not_at_all<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    created(&stand.create(fresh(0, &[5], 1)).await);
    let head = stand.head(0).await;
    assert_eq!(stand.create(fresh(0, &[4, 5, 6], 2)).await, CreateResult::Exists(1), "also where ids were just made");
    assert_eq!(stand.create(fresh(0, &[6, 8, 6], 2)).await, CreateResult::Exists(2), "the same id twice");
    stand.load_ids(&[4, 6], LoadedState::Missing).await;
    assert_eq!(stand.create(create(0, &[4, 5, 6])).await, CreateResult::Exists(1));
    assert_eq!(stand.create(create(0, &[4, 9, 6, 8])).await, CreateResult::NotLoaded(ids(&[9, 8])));
    assert_eq!(stand.waits(&[4, 5, 6, 8, 9]).await, [false, true, false, false, false]);
    assert_eq!((stand.head(0).await, stand.owned(7, 9).await.len()), (head, 0), "nothing was done");
    created(&stand.create(create(0, &[4, 6])).await);
    assert_eq!(stand.waits(&[4, 5, 6]).await, [true; 3]);
    let actors: Vec<_> = stand.waiting(&[4, 5]).await.into_iter().flatten().map(|document| document.actor).collect();
    assert_eq!(actors, ids(&[7, 1]));
}

pub async fn each_request_sees_those_before_it<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 4).await;
    for partition in [0, 3] {
        let loads = (1..=9).map(|id| TargetLoad { target: Id::Int(id), state: LoadedState::Missing }).collect();
        assert_eq!(stand.hydrate(partition, loads, vec![]).await, Hydrated::Accepted);
    }
    let ops = vec![create(3, &[1, 2]), create(0, &[1]), create(3, &[3, 2]), create(3, &[3]), create(0, &[4, 1])];
    let batch = CreateBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops };
    let commit = stand.store().create(KIND, batch).await.unwrap();
    let of = |index: usize| created(&commit.results[index]).position;
    assert_eq!(commit.results[2], CreateResult::Exists(1), "in its partition");
    assert_eq!(commit.results[4], CreateResult::Exists(1));
    let mut heads: Vec<_> = commit.heads.iter().map(|head| (head.partition, head.last, head.backlog.entries)).collect();
    heads.sort_unstable();
    assert_eq!(heads, [(0, of(1), 1), (3, of(0), 3)]);
    assert_eq!(of(0), of(3), "one entry for each partition");
    let ids_of =
        |records: Vec<(u64, Change)>| records.iter().map(|(_, change)| change.target().clone()).collect::<Vec<_>>();
    assert_eq!(ids_of(stand.records(3, 10).await), ids(&[1, 2, 3]), "in the order of acceptance");
    assert_eq!(ids_of(stand.records(0, 10).await), ids(&[1]));
}

pub async fn an_id_from_outside_is_taken_once<B: Backend>() {
    let stand =
        Stand::<B>::tuned(|config| (config.partitions, config.state_ttl_s, config.absent_ttl_s) = (1, 3, 3)).await;
    let mut sql = BTreeSet::new();
    assert_eq!(stand.create(create(0, &[1, 2])).await, CreateResult::NotLoaded(ids(&[1, 2])));
    assert_eq!(stand.load_ids(&[1, 2, 3], LoadedState::Missing).await, Hydrated::Accepted);
    assert_eq!(stand.load_ids(&[4], LoadedState::Exists).await, Hydrated::Accepted);
    assert_eq!(stand.create(create(0, &[3, 4])).await, CreateResult::Exists(1), "SQL has it");
    created(&stand.create(create(0, &[1, 2])).await);
    assert_eq!(stand.create(create(0, &[1])).await, CreateResult::Exists(0), "it waits");
    // A load that comes late takes nothing back.
    stand.load_ids(&[1], LoadedState::Missing).await;
    assert_eq!(stand.create(create(0, &[1])).await, CreateResult::Exists(0));
    stand.flush_documents(&mut sql, 0, &[2]).await;
    assert_eq!(stand.create(create(0, &[1])).await, CreateResult::Exists(0), "it is in SQL now");
    assert_eq!(stand.create(create(0, &[2])).await, CreateResult::NotLoaded(ids(&[2])), "SQL refused it");
    assert_eq!(stand.waits(&[1, 2]).await, [false, false]);
    created(&stand.create(fresh(0, &[3], 7)).await);
    stand.flush_documents(&mut sql, 0, &[]).await;
    assert_eq!(stand.create(create(0, &[3])).await, CreateResult::NotLoaded(ids(&[3])), "it is missing no longer");
    stand
        .until("all is forgotten", async || {
            stand.create(create(0, &[1, 3, 4])).await == CreateResult::NotLoaded(ids(&[1, 3, 4]))
        })
        .await;
    stand.load_ids(&[1], LoadedState::Exists).await;
    assert_eq!(stand.create(create(0, &[1])).await, CreateResult::Exists(0));
    stand.load_ids(&[2], LoadedState::Missing).await;
    created(&stand.create(create(0, &[2])).await);
    stand.flush_documents(&mut sql, 0, &[]).await;
    assert_eq!(sql, BTreeSet::from([Id::Int(1), Id::Int(2), Id::Int(3)]));
}

pub async fn an_idempotency_key_answers_the_first_create_again<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 4).await;
    let first = created(&stand.create(keyed(fresh(0, &[1, 2], 7), 1, 1)).await);
    let again = CreateResult::Done(Created { replayed: true, ..first });
    stand.advance_ms(5_000);
    // Made anew, the ids are others; the partition follows from the key.
    for id in [1, 50, 60] {
        assert_eq!(stand.create(keyed(fresh(0, &[id], 7), 1, 1)).await, again);
    }
    assert_eq!(stand.create(keyed(fresh(0, &[70], 7), 1, 2)).await, CreateResult::IdempotencyConflict);
    assert_eq!(stand.waits(&[1, 2, 50, 60, 70]).await, [true, true, false, false, false]);
    let ops = vec![keyed(fresh(3, &[5], 7), 2, 2), fresh(0, &[6], 7), keyed(fresh(3, &[8], 7), 2, 2)];
    let results = stand.creates(ops).await;
    let third = created(&results[0]);
    assert_eq!(results[2], CreateResult::Done(Created { replayed: true, ..third }), "within one batch");
    assert_eq!(third.at_ms, START_MS + 5_000);
    // What was not done is not remembered.
    let outside = |id| keyed(create(0, &[id]), 3, 3);
    assert_eq!(stand.create(outside(30)).await, CreateResult::NotLoaded(ids(&[30])));
    assert_eq!(stand.create(outside(1)).await, CreateResult::Exists(0));
    stand.load_ids(&[30], LoadedState::Missing).await;
    assert!(!created(&stand.create(outside(30)).await).replayed);
    for partition in 0..4 {
        stand.flush_documents(&mut BTreeSet::new(), partition, &[]).await;
    }
    assert_eq!(stand.create(keyed(fresh(0, &[1, 2], 7), 1, 1)).await, again, "also after the flush");
    assert!(created(&stand.create(outside(30)).await).replayed, "whatever exists by now");
}

pub async fn an_actors_documents_come_newest_first<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 3).await;
    for (partition, of, actor) in [(0, [1, 2], 7), (2, [3, 4], 7), (1, [5, 6], 8), (0, [9, 10], 7), (1, [11, 12], 7)] {
        // Positions are times: those of different partitions tell what is newer.
        stand.advance_ms(1_000);
        created(&stand.create(fresh(partition, &of, actor)).await);
    }
    let expected = ids(&[12, 11, 9, 10, 4, 3, 2, 1]);
    for limit in [0, 1, 2, 3, 4, 5, 8, 100] {
        let wanted = expected.iter().take(limit).cloned().collect::<Vec<_>>();
        assert_eq!(stand.owned(7, limit).await, wanted, "ties by text, limit {limit}");
    }
    assert_eq!(stand.owned(8, 10).await, ids(&[6, 5]));
    let newest = stand.store().documents_of(KIND, &Id::Int(7), 1).await.unwrap().remove(0);
    assert_eq!((newest.partition, newest.body, newest.at_ms), (1, body(12), START_MS + 5_000));
    stand.flush_documents(&mut BTreeSet::new(), 0, &[]).await;
    assert_eq!(stand.owned(7, 10).await, ids(&[12, 11, 4, 3]));
    let other = stand.store().documents_of("other", &Id::Int(7), 10).await.unwrap();
    assert_eq!(other, vec![], "kinds do not meet");
}

pub async fn what_waits_outlives_crashes_wipes_and_new_lives<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let mut sql = BTreeSet::new();
    stand.load_ids(&[1, 2, 3], LoadedState::Missing).await;
    created(&stand.create(create(0, &[1])).await);
    created(&stand.create(fresh(0, &[10, 11], 8)).await);
    let (head, documents) = (stand.head(0).await, stand.waiting(&[1, 10, 11]).await);
    assert!(documents.iter().all(Option::is_some));
    stand.crash().await;
    assert_eq!((stand.head(0).await, stand.waiting(&[1, 10, 11]).await), (head, documents.clone()));
    assert_eq!(stand.create(create(0, &[1])).await, CreateResult::Exists(0));
    stand.store().wipe_state(KIND).await.unwrap();
    assert_eq!(stand.head(0).await.backlog, head.backlog, "documents that wait are no cache");
    assert_eq!(stand.create(create(0, &[1, 2])).await, CreateResult::Exists(0));
    assert_eq!(stand.create(create(0, &[2])).await, CreateResult::NotLoaded(ids(&[2])), "absence is one");
    assert!(matches!(stand.load_ids(&[2], LoadedState::Missing).await, Hydrated::Stale(_)));
    let after = stand.store().reset(KIND, 0, head.incarnation).await.unwrap();
    assert_eq!(after.backlog, head.backlog);
    assert_eq!(stand.waiting(&[1, 10, 11]).await, documents);
    assert_eq!(stand.owned(8, 9).await, ids(&[11, 10]));
    assert_eq!(stand.create(fresh(0, &[10], 8)).await, CreateResult::Exists(0));
    stand.flush_documents(&mut sql, 0, &[]).await;
    assert_eq!(stand.waits(&[1, 10, 11]).await, [false; 3]);
    assert_eq!(stand.head(0).await.backlog, Backlog::default());
    assert_eq!(stand.load_ids(&[2], LoadedState::Missing).await, Hydrated::Accepted);
    created(&stand.create(create(0, &[2])).await);
    stand.crash().await;
    // An empty journal has nothing to tell, whatever was there.
    stand.flush_documents(&mut sql, 0, &[]).await;
    stand.store().reset(KIND, 0, stand.head(0).await.incarnation).await.unwrap();
    assert_eq!(stand.waits(&[1, 2, 10, 11]).await, [false; 4]);
    created(&stand.create(fresh(0, &[12], 8)).await);
    assert_eq!(stand.waits(&[12]).await, [true]);
    stand.lose_all().await;
    assert_eq!((stand.waits(&[12]).await, stand.owned(8, 9).await), (vec![false], vec![]));
}

pub async fn a_trim_takes_what_it_drops<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let first = created(&stand.create(fresh(0, &[1, 2], 7)).await).position;
    created(&stand.create(fresh(0, &[3], 7)).await);
    let head = stand.head(0).await;
    let trim = async |incarnation, position, touched: &[i64]| {
        stand.store().trim(KIND, 0, incarnation, position, &ids(touched), &[]).await.unwrap();
    };
    trim(head.incarnation, first, &[1, 2, 3]).await;
    assert_eq!((stand.waits(&[1, 2, 3]).await, stand.owned(7, 9).await), (vec![false, false, true], ids(&[3])));
    assert_eq!(stand.head(0).await.backlog.targets, 1);
    trim(head.incarnation, first, &[1, 2, 3]).await;
    assert_eq!(stand.head(0).await.backlog.targets, 1, "the same again changes nothing");
    // What is dropped does not wait, though nobody names it: not in this life, and not in the next.
    created(&stand.create(fresh(0, &[4], 7)).await);
    let last = stand.head(0).await.last;
    trim(head.incarnation, last, &[]).await;
    assert_eq!((stand.waits(&[3, 4]).await, stand.owned(7, 9).await), (vec![false; 2], vec![]));
    assert_eq!(stand.head(0).await.backlog, Backlog::default());
    stand.store().reset(KIND, 0, head.incarnation).await.unwrap();
    assert_eq!((stand.waits(&[3, 4]).await, stand.owned(7, 9).await), (vec![false; 2], vec![]));
    // Its id can be asked for, and used, as if it had been named.
    assert_eq!(stand.create(create(0, &[3])).await, CreateResult::NotLoaded(ids(&[3])));
    assert_eq!(stand.load_ids(&[3], LoadedState::Missing).await, Hydrated::Accepted);
    created(&stand.create(create(0, &[3])).await);
    assert_eq!((stand.waits(&[3, 4]).await, stand.owned(7, 9).await), (vec![true, false], ids(&[3])));
}

pub async fn documents_of_every_kind_are_read_back<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let text = |text: &str| Id::Text(text.into());
    let large: String = "x".repeat(200_000);
    let pairs = [
        (text("a:b {æ}"), text("c:d"), "{}".to_owned()),
        (Id::Uuid(Uuid::from_u128(1)), Id::Int(i64::MIN), format!("{{\"text\":\"{large}\"}}")),
        (Id::Int((1 << 53) + 1), Id::Uuid(Uuid::from_u128(u128::MAX)), String::new()),
        (text("\0"), text(""), "{\"nul\":\"\0\"}".to_owned()),
    ];
    for (id, actor, body) in &pairs {
        let document = Document { id: id.clone(), actor: actor.clone(), body: Arc::from(body.as_str()) };
        let op = CreateOp { partition: 0, documents: vec![document], has_fresh_ids: true, idempotency: None };
        created(&stand.create(op).await);
    }
    let asked: Vec<(Partition, Id)> = pairs.iter().map(|(id, ..)| (0, id.clone())).collect();
    let found = stand.store().documents(KIND, &asked).await.unwrap();
    for ((id, actor, body), found) in pairs.iter().zip(found) {
        let found = found.unwrap_or_else(|| panic!("{id} waits"));
        assert_eq!((&found.id, &found.actor, &*found.body), (id, actor, body.as_str()));
        assert_eq!(stand.store().documents_of(KIND, actor, 9).await.unwrap(), vec![found]);
    }
    let touched: Vec<Id> = pairs.iter().map(|(id, ..)| id.clone()).collect();
    let head = stand.head(0).await;
    stand.store().trim(KIND, 0, head.incarnation, head.last, &touched, &[]).await.unwrap();
    assert_eq!(stand.store().documents(KIND, &asked).await.unwrap(), vec![None; pairs.len()]);
}

pub async fn thousands_of_documents_are_one_step<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    let ops = (0..2_000).map(|n| fresh(u16::try_from(n % 2).unwrap(), &[n * 2, n * 2 + 1], n % 3)).collect();
    let results = stand.creates(ops).await;
    for partition in 0..2 {
        let position = stand.head(partition).await.last;
        let of_partition = results.iter().skip(usize::from(partition)).step_by(2);
        assert!(of_partition.map(created).all(|created| created.position == position), "one entry");
    }
    let owned = stand.store().documents_of(KIND, &Id::Int(1), 10_000).await.unwrap();
    assert_eq!(owned.len(), 2 * 667);
    assert!(owned.iter().all(|document| document.actor == Id::Int(1)));
    assert!(owned.is_sorted_by_key(|document| std::cmp::Reverse((document.position, document.id.to_string()))));
    assert_eq!(stand.store().documents_of(KIND, &Id::Int(1), 500).await.unwrap(), owned[..500]);
    let mut sql = BTreeSet::new();
    for partition in 0..2 {
        assert_eq!(stand.head(partition).await.backlog.targets, 2_000);
        stand.flush_documents(&mut sql, partition, &[]).await;
        assert_eq!(stand.head(partition).await.backlog, Backlog::default());
    }
    assert_eq!(sql.len(), 4_000);
    assert_eq!(stand.owned(1, 10).await, vec![]);
}

pub async fn a_journal_of_large_documents_is_read_in_steps<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let body: Arc<str> = Arc::from("x".repeat(3 << 20));
    for id in 0..5 {
        let document = Document { id: Id::Int(id), actor: Id::Int(7), body: Arc::clone(&body) };
        let op = CreateOp { partition: 0, documents: vec![document], has_fresh_ids: true, idempotency: None };
        created(&stand.create(op).await);
    }
    let head = stand.head(0).await;
    let (mut position, mut steps) = (0, Vec::new());
    loop {
        let read = stand.store().read_journal(KIND, 0, head.incarnation, position, 1_000).await.unwrap();
        let weir::store::JournalRead::Entries(entries) = read else { panic!("{read:?}") };
        let Some(newest) = entries.last() else { break };
        position = newest.position;
        steps.push(entries.len());
    }
    assert_eq!(steps, [3, 2], "no more than 8 MiB, and what is begun");
}

pub async fn a_partition_that_is_not_is_refused<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    let batch = CreateBatch {
        digest: DIGEST,
        at_ms: stand.now_ms(),
        now_ms: stand.now_ms(),
        ops: vec![fresh(0, &[1], 7), fresh(2, &[2], 7)],
    };
    let refused = stand.store().create(KIND, batch).await.map(|commit| commit.results);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(stand.waits(&[1]).await, [false], "nothing was done");
}
