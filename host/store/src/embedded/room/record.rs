//! Records of queues and people on disk. Everything here is data format.

use super::queue::{Person, Queue, Standing};
use crate::embedded::layout::Fields;
use crate::queues::RoomFigures;
use crate::text::{tagged, untagged};
use weir_core::model::Id;

pub(super) fn prefix(what: u8, kind: &str, queue: &Id) -> Vec<u8> {
    [&[what], kind.as_bytes(), &[0], tagged(queue).as_bytes(), &[0]].concat()
}

pub(super) fn queue_key(kind: &str, queue: &Id) -> Vec<u8> {
    prefix(b'q', kind, queue)
}

pub(super) fn person_key(kind: &str, queue: &Id, actor: &Id) -> Vec<u8> {
    let mut key = prefix(b'p', kind, queue);
    key.extend_from_slice(tagged(actor).as_bytes());
    key
}

pub(super) fn draw_key(kind: &str, queue: &Id, place: u64) -> Vec<u8> {
    let mut key = prefix(b'd', kind, queue);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

pub(super) fn actor(actor: &Id) -> Vec<u8> {
    tagged(actor).into_bytes()
}

/// Kind and queue of a key, and what comes after them.
pub(super) fn parts(key: &[u8]) -> Option<((String, Id), &[u8])> {
    let mut parts = key.get(1..)?.splitn(3, |byte| *byte == 0);
    let kind = std::str::from_utf8(parts.next()?).ok()?;
    let queue = untagged(parts.next()?)?;
    Some(((kind.to_owned(), queue), parts.next()?))
}

fn encode(head: &[u8], numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 8 * numbers.len());
    out.extend_from_slice(head);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out
}

pub(super) fn encode_queue(queue: &Queue) -> Vec<u8> {
    let RoomFigures { joined, admitted, completed, expired, no_shows, abandoned, left, .. } = queue.figures;
    let totals = [joined, admitted, completed, expired, no_shows, abandoned, left];
    let numbers = [&[queue.number, queue.draws, queue.used_ms], &totals[..]].concat();
    // A queue without any event has no time.
    encode(&queue.seed, &queue.time_ms.iter().fold(numbers, |numbers, time_ms| [&numbers[..], &[*time_ms]].concat()))
}

pub(super) fn decode_queue(bytes: &[u8]) -> Option<Queue> {
    let (seed, rest) = bytes.split_first_chunk::<32>()?;
    let mut fields = Fields(rest);
    let mut queue = Queue::new(*seed);
    queue.number = fields.u64()?;
    queue.draws = fields.u64()?;
    queue.used_ms = fields.u64()?;
    queue.figures = RoomFigures {
        joined: fields.u64()?,
        admitted: fields.u64()?,
        completed: fields.u64()?,
        expired: fields.u64()?,
        no_shows: fields.u64()?,
        abandoned: fields.u64()?,
        left: fields.u64()?,
        ..RoomFigures::default()
    };
    if !fields.0.is_empty() {
        queue.time_ms = Some(fields.u64()?);
    }
    fields.0.is_empty().then_some(queue)
}

pub(super) fn encode_person(person: &Person) -> Vec<u8> {
    let Person { number, time_ms, .. } = *person;
    match person.standing {
        Standing::Waiting { score, joined_ms } => encode(b"w", &[number, time_ms, score, joined_ms]),
        Standing::Active { ttl_ms, admitted_ms, has_come } => {
            let state = if has_come { b"c" } else { b"a" };
            match person.entered_ms {
                Some(entered_ms) => encode(state, &[number, time_ms, ttl_ms, admitted_ms, entered_ms]),
                None => encode(state, &[number, time_ms, ttl_ms, admitted_ms]),
            }
        }
    }
}

pub(super) fn decode_person(actor: Id, bytes: &[u8]) -> Option<Person> {
    let (state, rest) = bytes.split_first()?;
    let mut fields = Fields(rest);
    let (number, time_ms) = (fields.u64()?, fields.u64()?);
    let (first, second) = (fields.u64()?, fields.u64()?);
    let standing = match state {
        b'w' => Standing::Waiting { score: first, joined_ms: second },
        b'a' | b'c' => Standing::Active { ttl_ms: first, admitted_ms: second, has_come: *state == b'c' },
        _ => return None,
    };
    let is_active = matches!(standing, Standing::Active { .. });
    let entered_ms = if is_active && !fields.0.is_empty() { Some(fields.u64()?) } else { None };
    fields.0.is_empty().then_some(Person { actor, number, standing, time_ms, entered_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_cut_ones_are_not() {
        let mut queue = Queue::new([7; 32]);
        (queue.number, queue.draws, queue.used_ms, queue.figures.left) = (1, 2, 3, 9);
        assert_eq!(decode_queue(&encode_queue(&queue)).unwrap().time_ms, None, "as an earlier weir wrote it");
        queue.time_ms = Some(77);
        let read = decode_queue(&encode_queue(&queue)).unwrap();
        assert_eq!(read.time_ms, Some(77));
        assert_eq!((read.seed, read.number, read.draws, read.used_ms), ([7; 32], 1, 2, 3));
        assert_eq!(read.figures, queue.figures);
        assert!(decode_queue(&encode_queue(&queue)[1..]).is_none());
        let standings = [
            Standing::Waiting { score: 5, joined_ms: 6 },
            Standing::Active { ttl_ms: 5, admitted_ms: 6, has_come: false },
            Standing::Active { ttl_ms: 5, admitted_ms: 6, has_come: true },
        ];
        for standing in standings {
            let entered_ms = matches!(standing, Standing::Active { has_come: true, .. }).then_some(10);
            let person = Person { actor: Id::Int(3), number: 8, standing, time_ms: 9, entered_ms };
            let bytes = encode_person(&person);
            assert_eq!(decode_person(Id::Int(3), &bytes), Some(person));
            assert_eq!(decode_person(Id::Int(3), &bytes[..32]), None);
        }
        let key = person_key("concert", &Id::Text("a b".into()), &Id::Int(3));
        let (place, rest) = parts(&key).unwrap();
        assert_eq!((place, rest), (("concert".into(), Id::Text("a b".into())), &b"i3"[..]));
    }
}
