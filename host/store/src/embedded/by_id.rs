//! A table by id that takes half the memory where ids are integers, as they nearly always are.

use std::collections::HashMap;

use weir_core::model::Id;

/// Memory of one entry besides its key and value, in bytes: a control byte, and the table's free share.
const OVERHEAD_BYTES: usize = 2;

/// Values by id.
#[derive(Debug)]
pub(super) struct ById<V> {
    integers: HashMap<i64, V>,
    others: HashMap<Id, V>,
    /// Memory of the texts, in bytes.
    text_bytes: usize,
}

impl<V> Default for ById<V> {
    fn default() -> Self {
        Self { integers: HashMap::new(), others: HashMap::new(), text_bytes: 0 }
    }
}

impl<V> ById<V> {
    pub(super) fn len(&self) -> usize {
        self.integers.len() + self.others.len()
    }

    pub(super) fn get(&self, id: &Id) -> Option<&V> {
        match id {
            Id::Int(number) => self.integers.get(number),
            _ => self.others.get(id),
        }
    }

    pub(super) fn insert(&mut self, id: &Id, value: V) {
        match id {
            Id::Int(number) => drop(self.integers.insert(*number, value)),
            _ => {
                if self.others.insert(id.clone(), value).is_none() {
                    self.text_bytes += text_bytes(id);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: &Id) {
        match id {
            Id::Int(number) => drop(self.integers.remove(number)),
            _ => {
                if self.others.remove(id).is_some() {
                    self.text_bytes -= text_bytes(id);
                }
            }
        }
    }

    /// Reserves space for `more` values; `like` is one of the ids to come.
    pub(super) fn reserve(&mut self, more: usize, like: &Id) {
        match like {
            Id::Int(_) => self.integers.reserve(more),
            _ => self.others.reserve(more),
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.integers.retain(|_, value| keep(value));
        let text_bytes_kept = &mut self.text_bytes;
        self.others.retain(|id, value| {
            let kept = keep(value);
            if !kept {
                *text_bytes_kept -= text_bytes(id);
            }
            kept
        });
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &V)> {
        let integers = self.integers.iter().map(|(number, value)| (Id::Int(*number), value));
        integers.chain(self.others.iter().map(|(id, value)| (id.clone(), value)))
    }

    /// Its memory, in bytes, besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.integers.capacity() * (size_of::<(i64, V)>() + OVERHEAD_BYTES)
            + self.others.capacity() * (size_of::<(Id, V)>() + OVERHEAD_BYTES)
            + self.text_bytes
    }
}

fn text_bytes(id: &Id) -> usize {
    if let Id::Text(text) = id { text.len() + 2 * size_of::<usize>() } else { 0 }
}
