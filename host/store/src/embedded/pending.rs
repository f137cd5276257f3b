//! Waiting documents, in memory: the place of each in the journal, and its owner. Their bodies stay on disk.
//!
//! Bounded by the backlog of the journal. Rebuilt from it after a restart, always completely.

use std::collections::{BTreeSet, HashMap};

use weir_core::model::{Id, Position};

/// Memory of one document in all tables, in bytes, besides its texts.
const DOCUMENT_BYTES: usize = 2 * size_of::<(Id, Waiting)>() + 2 * size_of::<(Position, Id)>();

/// The place of a document, and its fate after the flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its entry.
    pub(super) position: Position,
    /// The offset of its record in the entry, in bytes.
    pub(super) place: usize,
    /// Its actor.
    pub(super) actor: Id,
    /// Its id is from outside: a request that uses it again learns that it exists, even after the flush.
    pub(super) is_asked_again: bool,
    /// The group of writes that it belongs to: no caller learns of it before that group is on disk.
    pub(super) group: u64,
}

/// The waiting documents of one (kind, partition).
#[derive(Debug, Default)]
pub(super) struct Pending {
    documents: HashMap<Id, Waiting>,
    owners: HashMap<Id, BTreeSet<(Position, Id)>>,
    /// Memory of the texts, in bytes.
    text_bytes: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.documents.len()
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Waiting> {
        self.documents.get(id)
    }

    /// Adds a document that does not wait yet.
    pub(super) fn insert(&mut self, id: Id, waiting: Waiting) {
        self.text_bytes += text_bytes(&id) + text_bytes(&waiting.actor);
        self.owners.entry(waiting.actor.clone()).or_default().insert((waiting.position, id.clone()));
        self.documents.insert(id, waiting);
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<Waiting> {
        let waiting = self.documents.remove(id)?;
        self.text_bytes -= text_bytes(id) + text_bytes(&waiting.actor);
        if let Some(of_owner) = self.owners.get_mut(&waiting.actor) {
            of_owner.remove(&(waiting.position, id.clone()));
            if of_owner.is_empty() {
                self.owners.remove(&waiting.actor);
            }
        }
        if self.documents.is_empty() {
            // Frees the memory of the tables.
            *self = Self::default();
        }
        Some(waiting)
    }

    /// Drops those at or below `position`.
    pub(super) fn forget_upto(&mut self, position: Position) {
        let lie_there = |(_, waiting): &(&Id, &Waiting)| waiting.position <= position;
        let ids: Vec<Id> = self.documents.iter().filter(lie_there).map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| drop(self.remove(id)));
    }

    /// The number of documents above `after`, up to `last`.
    pub(super) fn between(&self, after: Position, last: Position) -> impl Iterator<Item = &Id> {
        let lies = move |waiting: &Waiting| waiting.position > after && waiting.position <= last;
        self.documents.iter().filter(move |(_, waiting)| lies(waiting)).map(|(id, _)| id)
    }

    /// The newest `limit` documents of `actor`, in no order; more where the last ones share an entry.
    pub(super) fn newest_of(&self, actor: &Id, limit: usize) -> Vec<(&Id, &Waiting)> {
        let mut newest: Vec<(&Id, &Waiting)> = Vec::new();
        for (position, id) in self.owners.get(actor).into_iter().flatten().rev() {
            if newest.len() >= limit && newest.last().is_none_or(|(_, last)| last.position != *position) {
                break;
            }
            newest.extend(self.documents.get(id).map(|waiting| (id, waiting)));
        }
        newest
    }

    /// Its memory, in bytes, besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.documents.len() * DOCUMENT_BYTES + self.text_bytes
    }
}

fn text_bytes(id: &Id) -> usize {
    if let Id::Text(text) = id { text.len() + 2 * size_of::<usize>() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_leaves_nothing_behind() {
        let mut pending = Pending::default();
        let text = |text: &str| Id::Text(text.into());
        let waiting = |position, actor: &str| Waiting {
            position,
            place: 41,
            actor: text(actor),
            is_asked_again: false,
            group: 1,
        };
        for (id, position) in [("a", 5), ("b", 5), ("c", 7), ("d", 6)] {
            pending.insert(text(id), waiting(position, if id == "d" { "you" } else { "me" }));
        }
        let newest = |pending: &Pending, limit| {
            let mut ids: Vec<_> =
                pending.newest_of(&text("me"), limit).into_iter().map(|(id, _)| id.to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!((newest(&pending, 0), newest(&pending, 1)), (vec![], vec!["c".to_owned()]));
        assert_eq!(newest(&pending, 2), ["a", "b", "c"], "the entry is not cut");
        assert_eq!(pending.remove(&text("c")), Some(waiting(7, "me")));
        assert_eq!(pending.remove(&text("c")), None);
        assert_eq!((newest(&pending, 9), pending.len()), (vec!["a".to_owned(), "b".to_owned()], 3));
        for id in ["a", "b", "d"] {
            assert!(pending.remove(&text(id)).is_some());
        }
        assert_eq!((pending.bytes(), pending.owners.len()), (0, 0));
    }
}
