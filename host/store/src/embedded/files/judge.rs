//! Distinguishes a torn tail from damage: unacknowledged writes from acknowledged ones.
//!
//! Batches are numbered without gaps. A missing batch is damage if there is proof that it was synced; otherwise a power cut took
//! it, and no later batch was acknowledged either. Pure.

use std::ops::{Range, RangeInclusive};

use super::batch_header::{BatchHeader, Mark};
use super::wal::{Batch, Gap, Piece};

/// The database also numbers flushes and compactions, but never this many between two batches.
pub(in super::super) const SEQNO_SKIP_MAX: u64 = 1 << 20;

/// One file of the log.
#[derive(Debug)]
pub(in super::super) struct LogFile {
    /// Its name.
    pub(in super::super) name: String,
    /// Its bytes, without the zeros at its end.
    pub(in super::super) end: usize,
    pub(in super::super) pieces: Vec<Piece>,
}

/// An acknowledged write that is missing or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Damage {
    /// The file, within the directory.
    pub(in super::super) file: String,
    pub(in super::super) range: Option<Range<usize>>,
    pub(in super::super) why: String,
    /// The groups of writes that are missing.
    pub(in super::super) groups: Option<RangeInclusive<u64>>,
}

/// The verdict on the log.
#[derive(Debug, Default)]
pub(in super::super) struct Verdict {
    pub(in super::super) damage: Vec<Damage>,
    /// Files with an unacknowledged end, and where it begins: cut it off.
    pub(in super::super) torn: Vec<(String, usize)>,
    /// The last batch that is whole and without a break; none where the log has no numbers yet.
    pub(in super::super) last: Option<BatchHeader>,
    /// Up to this number batches are known to have been synced.
    pub(in super::super) synced: u64,
    /// Batches that are whole.
    pub(in super::super) batches: u64,
}

/// `files` in their order; `persisted` is the newest sequence number in the tables of each keyspace.
pub(in super::super) fn judge(files: &[LogFile], mark: &Mark, persisted: &[Option<u64>]) -> Verdict {
    let batches = || files.iter().flat_map(|file| &file.pieces).filter_map(batch_of);
    let by_log = batches().filter_map(|batch| batch.header.as_ref()).map(|header| header.synced).max();
    let marked = mark.header().map_or(0, |header| header.number);
    let synced = by_log.unwrap_or(0).max(marked);
    let verdict = Verdict { synced, batches: batches().count() as u64, ..Verdict::default() };
    let mut walk = Walk { persisted, left: verdict.batches, verdict, at: None, seqno: None, gaps: Vec::new() };
    for file in files {
        for piece in &file.pieces {
            match piece {
                Piece::Gap(gap) => walk.gaps.push((file, gap)),
                Piece::Batch(batch) if !walk.step(file, batch) => return walk.verdict,
                Piece::Batch(_) => {}
            }
        }
    }
    walk.end(files.last(), mark);
    walk.verdict
}

fn batch_of(piece: &Piece) -> Option<&Batch> {
    if let Piece::Batch(batch) = piece { Some(batch) } else { None }
}

struct Walk<'a> {
    persisted: &'a [Option<u64>],
    verdict: Verdict,
    /// Batches not checked yet.
    left: u64,
    /// The batch before: its file, and where it ends.
    at: Option<(&'a LogFile, usize)>,
    seqno: Option<u64>,
    /// The bytes between the batch before and the next one.
    gaps: Vec<(&'a LogFile, &'a Gap)>,
}

impl<'a> Walk<'a> {
    /// Takes the next batch; `false` when the log ends before it.
    fn step(&mut self, file: &'a LogFile, batch: &'a Batch) -> bool {
        self.left -= 1;
        let is_old = |header: &BatchHeader| self.verdict.last.as_ref().is_some_and(|last| header.number <= last.number);
        if !self.gaps.is_empty() && batch.header.as_ref().is_some_and(is_old) {
            // Old content of the disk, where nothing was written.
            return true;
        }
        let goes_on = match &batch.header {
            Some(header) => self.numbered(file, header),
            None => self.unnumbered(file),
        };
        if goes_on {
            self.check_seqno(file, batch);
            self.at = Some((file, batch.range.end));
            self.verdict.last = batch.header.clone().or(self.verdict.last.take());
        }
        goes_on
    }

    fn numbered(&mut self, file: &'a LogFile, header: &BatchHeader) -> bool {
        let expected = match (&self.verdict.last, self.at) {
            (Some(before), _) => before.number + 1,
            // The log reaches back to the first numbered batch, or further.
            (None, Some(_)) => 1,
            (None, None) => {
                let is_begun = header.number > 1 && self.gaps.is_empty();
                if is_begun && !is_in_tables(&header.last, self.persisted) {
                    self.damage(file, None, "the files before it have gone", Some(1..=header.number - 1));
                }
                if is_begun { header.number } else { 1.max(header.number - self.gaps.len().min(1) as u64) }
            }
        };
        if header.number < expected {
            self.damage(file, None, "writes lie here that were made before those that lie before them", None);
        } else if header.number > expected {
            if expected > self.verdict.synced && self.is_torn(file) {
                return false;
            }
            self.missing(file, expected..=header.number - 1);
        } else if self.gaps.iter().any(|(of, _)| std::ptr::eq(*of, file)) {
            self.missing_none();
        } else {
            // The end of an earlier file, where a write failed halfway.
            self.tear();
        }
        true
    }

    /// A batch of a version that did not number batches.
    fn unnumbered(&mut self, file: &'a LogFile) -> bool {
        if self.gaps.is_empty() {
            return true;
        }
        // One batch may have been in flight when the power failed; of two the first had been synced.
        if self.left == 0 && self.is_torn(file) {
            return false;
        }
        self.missing_none();
        true
    }

    /// Cuts the log off at the gap before this batch; `false` where there is none in its file.
    fn is_torn(&mut self, file: &LogFile) -> bool {
        let is_here = self.gaps.first().is_some_and(|(of, _)| std::ptr::eq(*of, file));
        if is_here {
            self.tear();
        }
        is_here
    }

    fn tear(&mut self) {
        let torn = self.gaps.drain(..).map(|(of, gap)| (of.name.clone(), gap.range.start));
        for (name, from) in torn {
            if self.verdict.torn.iter().all(|(known, _)| *known != name) {
                self.verdict.torn.push((name, from));
            }
        }
    }

    fn check_seqno(&mut self, file: &LogFile, batch: &Batch) {
        let min = batch.header.as_ref().map_or(0, |header| header.seqno_min);
        let is_after = self.seqno.is_none_or(|before| before < batch.seqno) && min <= batch.seqno;
        let is_near = batch.header.is_none() || batch.seqno - min.min(batch.seqno) <= SEQNO_SKIP_MAX;
        if is_after && is_near {
            self.seqno = Some(batch.seqno);
        } else {
            self.damage(file, Some(batch.range.clone()), "the sequence number of writes is damaged", None);
        }
    }

    fn damage(&mut self, file: &LogFile, range: Option<Range<usize>>, why: &str, groups: Option<RangeInclusive<u64>>) {
        let damage = Damage { file: file.name.clone(), range, why: why.into(), groups };
        self.verdict.damage.push(damage);
    }

    /// Unreadable bytes between consecutive batches.
    fn missing_none(&mut self) {
        for (file, gap) in std::mem::take(&mut self.gaps) {
            self.damage(file, Some(gap.range.clone()), gap.why, None);
        }
    }

    /// The groups that are missing between the batch before and one in `file`.
    fn missing(&mut self, file: &'a LogFile, groups: RangeInclusive<u64>) {
        if self.gaps.is_empty() {
            let (file, range) = match self.at {
                Some((before, end)) if !std::ptr::eq(before, file) => (before, Some(end..before.end.max(end))),
                _ => (file, None),
            };
            return self.damage(file, range, "writes are missing behind it", Some(groups));
        }
        let mut groups = Some(groups);
        for (file, gap) in std::mem::take(&mut self.gaps) {
            self.damage(file, Some(gap.range.clone()), gap.why, groups.take());
        }
    }

    fn end(&mut self, newest: Option<&'a LogFile>, mark: &Mark) {
        let (last, marked) = (self.verdict.last.as_ref().map_or(0, |header| header.number), mark.header());
        let is_lost = |marked: &&BatchHeader| marked.number > last && !is_in_tables(&marked.last, self.persisted);
        let Some(marked) = marked.filter(is_lost) else { return self.tear() };
        let groups = last + 1..=marked.number;
        match (self.gaps.is_empty(), self.at, newest) {
            (true, Some((file, end)), _) => {
                self.damage(file, Some(end..end), "the end of the log has gone", Some(groups));
            }
            (true, None, Some(file)) => self.damage(file, None, "the log is empty", Some(groups)),
            (true, None, None) => self.verdict.damage.push(Damage {
                file: "*.jnl".into(),
                range: None,
                why: "the log has gone".into(),
                groups: Some(groups),
            }),
            (false, ..) => {
                let Some((file, _)) = self.gaps.first().copied() else { return };
                self.missing(file, groups);
            }
        }
    }
}

/// Whether everything written before is in the tables, for the keyspaces where that is known: their newest write is never
/// deleted.
fn is_in_tables(last: &[u64], persisted: &[Option<u64>]) -> bool {
    let is_there = |(index, last): (usize, &u64)| {
        *last == 0 || persisted.get(index).copied().flatten().is_some_and(|persisted| persisted >= *last)
    };
    last.iter().enumerate().all(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Groups = Vec<Option<RangeInclusive<u64>>>;
    type Torn = Vec<(String, usize)>;

    const ONE: usize = 100;

    /// A file with the groups that are numbered; 0 stands for what cannot be read.
    fn file(name: &str, groups: &[u64]) -> LogFile {
        let piece = |(at, &number): (usize, &u64)| {
            let range = at * ONE..(at + 1) * ONE;
            if number == 0 {
                return Piece::Gap(Gap { range, why: "torn" });
            }
            let header = BatchHeader {
                salt: 1,
                number,
                synced: number - 1,
                seqno_min: number * 10,
                last: vec![number * 10 - 10],
            };
            Piece::Batch(Batch { range, seqno: number * 10, header: Some(header), keyspaces: 2 })
        };
        let pieces = groups.iter().enumerate().map(piece).collect();
        LogFile { name: name.into(), end: groups.len() * ONE, pieces }
    }

    fn mark(number: u64) -> Mark {
        Mark::Synced(BatchHeader { salt: 1, number, synced: number, seqno_min: 0, last: vec![number * 10] })
    }

    fn judged(files: &[LogFile], mark: &Mark, persisted: u64) -> (Groups, Torn) {
        let verdict = judge(files, mark, &[Some(persisted)]);
        (verdict.damage.into_iter().map(|damage| damage.groups).collect(), verdict.torn)
    }

    #[test]
    fn what_was_synced_is_damage_and_what_was_not_is_torn() {
        let cut = |at: usize| vec![("0.jnl".to_owned(), at * ONE)];
        let only = |groups: &[u64], mark: &Mark| judged(&[file("0.jnl", groups)], mark, 0);
        assert_eq!(only(&[1, 2, 3], &mark(3)), (vec![], vec![]));
        assert_eq!(only(&[1, 2, 3], &mark(1)), (vec![], vec![]), "the mark may be old");
        assert_eq!(only(&[1, 2, 3, 0], &mark(3)), (vec![], cut(3)), "never acknowledged");
        assert_eq!(only(&[1, 2, 3, 0], &mark(4)), (vec![Some(4..=4)], vec![]));
        assert_eq!(only(&[1, 2, 3], &mark(4)), (vec![Some(4..=4)], vec![]), "cut, or zeroed");
        assert_eq!(only(&[1, 0, 3, 4], &Mark::Missing), (vec![Some(2..=2)], vec![]), "4 says that 3 had been synced");
        assert_eq!(only(&[0, 2, 3], &Mark::Missing), (vec![Some(1..=1)], vec![]));
        assert_eq!(only(&[1, 0, 0, 5, 0, 7], &mark(7)), (vec![Some(2..=4), None, Some(6..=6)], vec![]));
        assert_eq!(only(&[1, 2, 4, 5], &Mark::Missing), (vec![Some(3..=3)], vec![]));
        assert_eq!(only(&[1, 2, 2], &Mark::Missing).0, [None, None], "neither number nor sequence number");
        assert_eq!(only(&[1, 2, 0, 1, 2, 0], &mark(2)), (vec![], cut(2)), "what the disk had there before");
    }

    #[test]
    fn a_power_cut_may_leave_a_hole_in_what_was_not_synced() {
        let mut holed = file("0.jnl", &[1, 2, 0, 4]);
        let Some(Piece::Batch(Batch { header: Some(header), .. })) = holed.pieces.last_mut() else { panic!() };
        header.synced = 2;
        let verdict = judge(&[holed], &mark(2), &[None]);
        assert_eq!((verdict.damage, verdict.torn), (vec![], vec![("0.jnl".to_owned(), 2 * ONE)]));
        assert_eq!(verdict.last.map(|header| header.number), Some(2));
    }

    #[test]
    fn files_that_have_gone_are_noticed_unless_the_tables_hold_them() {
        let files = || vec![file("3.jnl", &[7, 8]), file("4.jnl", &[9])];
        assert_eq!(judged(&files(), &mark(9), 60), (vec![], vec![]));
        assert_eq!(judged(&files(), &mark(9), 59).0, [Some(1..=6)]);
        assert_eq!(judged(&[file("4.jnl", &[])], &mark(9), 90), (vec![], vec![]));
        assert_eq!(judged(&[], &mark(9), 89).0, [Some(1..=9)]);
        let files = [file("3.jnl", &[1, 2]), file("5.jnl", &[5])];
        assert_eq!(judged(&files, &mark(5), 0).0, [Some(3..=4)]);
        let files = [file("3.jnl", &[1, 2, 0]), file("4.jnl", &[3])];
        assert_eq!(judged(&files, &mark(3), 0), (vec![], vec![("3.jnl".to_owned(), 2 * ONE)]), "a write that failed");
    }

    #[test]
    fn a_damaged_sequence_number_is_noticed() {
        for (at, seqno) in [(1, 9), (1, 31), (2, 1 << 40), (2, 29)] {
            let mut log = file("0.jnl", &[1, 2, 3]);
            let Piece::Batch(batch) = &mut log.pieces[at] else { panic!() };
            batch.seqno = seqno;
            assert_eq!(judged(&[log], &mark(3), 0).0, [None], "{at} {seqno}");
        }
    }

    #[test]
    fn a_log_without_numbers_is_read_as_well() {
        let plain = |groups: &[u64]| {
            let mut log = file("0.jnl", groups);
            for piece in &mut log.pieces {
                if let Piece::Batch(batch) = piece {
                    batch.header = None;
                }
            }
            log
        };
        assert_eq!(judged(&[plain(&[1, 2])], &Mark::Missing, 0), (vec![], vec![]));
        assert_eq!(judged(&[plain(&[1, 2, 0, 4])], &Mark::Missing, 0), (vec![], vec![("0.jnl".to_owned(), 2 * ONE)]));
        assert_eq!(judged(&[plain(&[1, 0, 3, 4])], &Mark::Missing, 0).0, [None]);
        let mut both = plain(&[20, 21]);
        both.pieces.extend(file("0.jnl", &[1, 2]).pieces);
        for (piece, seqno) in both.pieces.iter_mut().zip(5..) {
            let Piece::Batch(batch) = piece else { continue };
            batch.seqno = seqno * 5;
        }
        assert_eq!(judged(&[both], &mark(2), 0), (vec![], vec![]));
    }
}
