//! What the self-check says: what is wrong, and what to do about it.
//!
//! Knows no engine. Plain data; holds no SQL text and sends nothing. Problems and remedies have names, so that
//! the tests can tell which of them they have run: one that no test runs fails them.

use serde::Serialize;

/// An enumeration whose variants are all known to the tests.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$doc])+ $variant,)+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}

named! {
    /// What is wrong.
    Problem {
        /// The server is of a version that is too old.
        OldServer,
        /// A setting of the server: a power failure loses commits.
        PowerLoss,
        /// A setting of the server: a crash loses commits.
        CrashLoss,
        /// The database's encoding has not all characters.
        Encoding,
        /// The server takes no writes.
        ReadOnly,
        /// Sessions do not keep what weir sets: limits of time, isolation, strictness.
        SessionSettings,
        /// The server's binary log refuses what weir writes.
        BinaryLog,
        /// Readers and writers of the file block each other.
        JournalMode,
        /// The file's foreign keys do not hold.
        ForeignKeysOff,
        /// There is no such table.
        NoTable,
        /// It is no table.
        NotATable,
        /// The table takes no part in transactions.
        NotTransactional,
        /// A foreign key that is checked at the commit only.
        DeferredForeignKey,
        /// The user lacks a right.
        NoRight,
        /// There is no such column, and weir cannot say which.
        NoIdColumn,
        /// There is no column for the count.
        NoCountColumn,
        /// There is no column for the time.
        NoTimeColumn,
        /// There is no column for a value.
        NoValueColumn,
        /// A column does not hold ids of the type.
        IdType,
        /// A column does not hold times.
        TimeType,
        /// A column does not hold integers.
        NumberType,
        /// A column does not hold the values.
        ValueType,
        /// A column of bits, into which weir cannot write what it means.
        BitColumn,
        /// The database computes the column.
        Computed,
        /// A column for ids that is shorter than ids may be.
        ShortText,
        /// A column of fewer than 64 bits.
        NarrowInteger,
        /// Different ids are equal.
        Collation,
        /// Ids that differ in trailing spaces are equal.
        TrailingSpaces,
        /// There is no unique key.
        NoUniqueKey,
        /// There cannot be a unique key, because rows are there twice.
        Duplicates,
        /// There cannot be a unique key, because the table is partitioned by something else.
        PartitionedOtherwise,
        /// A column must be given, and weir has nothing for it.
        NotFilled,
        /// The column requires a time, and weir is not configured to give one.
        TimeNotFilled,
        /// A further column distinguishes rows of one pair.
        RowsDiffer,
        /// Rows have a state, or are deleted without going away.
        RowState,
        /// As `RowState`, of a table from which weir deletes nothing.
        StateIgnored,
        /// Another unique key may refuse rows.
        OtherKey,
        /// A trigger or rule may discard rows.
        SkippingTrigger,
        /// A trigger or rule counts what weir counts.
        CountingTrigger,
        /// Counts are not the numbers of rows.
        CountsDiffer,
        /// Whether counts are the numbers of rows could not be seen in time.
        CountsUnknown,
        /// A bulk statement reads the whole table.
        Scan,
        /// A list reads the whole table.
        NoIndex,
        /// The table cannot store hits without an actor.
        ActorNotNull,
        /// A statement in the configuration that the database refuses.
        Statement,
        /// The journal is another database's.
        ForeignJournal,
        /// The journal has another number of partitions.
        Partitions,
        /// Changes from before journals had a database.
        UnknownJournal,
        /// Changes of a kind that is not configured.
        OrphanKind,
        /// Changes in another store.
        OtherStore,
        /// A store that was emptied.
        EmptiedStore,
    }
}

named! {
    /// What to do.
    Advice {
        /// Something that only a person can decide or do, in dialect.
        Decide,
        /// Change a setting of the server.
        SetServer,
        /// Create the table.
        CreateTable,
        /// Move the table to a transactional engine.
        ChangeEngine,
        /// Grant a right.
        Grant,
        /// Add a column for the count, and fill it.
        AddCount,
        /// Add a column for the time.
        AddTime,
        /// Add a column for a value.
        AddValue,
        /// Make numbers of 64 bits of it.
        WidenInteger,
        /// Make room for longer text.
        WidenText,
        /// Make true and false of bits.
        MakeBoolean,
        /// Compare by bytes.
        Collate,
        /// Add the unique key.
        AddUniqueKey,
        /// List what is there twice.
        ListDuplicates,
        /// Let the database fill the time.
        DefaultTime,
        /// Let NULL be there.
        LetNull,
        /// Drop the trigger, or let it count alone.
        DropTrigger,
        /// Make the counts what the rows say.
        FillCounts,
        /// Compare all counts with the rows.
        CompareCounts,
        /// Add an index.
        AddIndex,
    }
}

/// What to do about a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remedy {
    /// What it is.
    pub advice: Advice,
    /// In words; empty where the statements say all.
    pub text: String,
    /// The statements to run, in this order and in one session.
    pub statements: Vec<String>,
    /// In place of the last of them, where the table is large.
    pub in_batches: Vec<String>,
}

impl Remedy {
    /// Dialect for a person.
    pub fn text(text: impl Into<String>) -> Self {
        Self { advice: Advice::Decide, text: text.into(), statements: Vec::new(), in_batches: Vec::new() }
    }

    /// Statements.
    pub fn run(advice: Advice, statements: impl IntoIterator<Item = String>) -> Self {
        Self { advice, text: String::new(), statements: statements.into_iter().collect(), in_batches: Vec::new() }
    }

    /// With words before the statements.
    #[must_use]
    pub fn saying(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }
}

/// One finding of the self-check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `false`: weir must not start with it. `true`: worth knowing.
    pub warning: bool,
    /// What is wrong, by its name.
    pub name: Problem,
    /// What is wrong, naming table and column.
    pub problem: String,
    /// What to do, by its name.
    pub advice: Advice,
    /// What to do, in dialect, with the statements to run.
    pub remedy: String,
    /// The statements to run, in this order and in one session; empty where a person must decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
    /// Where a table is large, in place of the last statement: repeated until they change no row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_batches: Vec<String>,
}

impl Finding {
    fn new(warning: bool, name: Problem, problem: String, remedy: Remedy) -> Self {
        let Remedy { advice, text, statements, in_batches } = remedy;
        let mut parts = Vec::new();
        if !text.is_empty() {
            parts.push(text);
        }
        if !statements.is_empty() {
            parts.push(format!("{};", statements.join("; ")));
        }
        if !in_batches.is_empty() {
            parts.push(format!(
                "on a large table, in place of the last statement and until it changes no row: {};",
                in_batches.join("; ")
            ));
        }
        Self { warning, name, problem, advice, remedy: parts.join(" "), statements, in_batches }
    }

    /// With words only, for a person: what weir must not start with.
    pub fn refusal(name: Problem, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        refuse(name, problem.into(), Remedy::text(remedy))
    }

    /// With words only, for a person: worth knowing.
    pub fn warning(name: Problem, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        warn(name, problem, Remedy::text(remedy))
    }
}

/// A finding that forbids to start.
pub(super) fn refuse(name: Problem, problem: String, remedy: Remedy) -> Finding {
    Finding::new(false, name, problem, remedy)
}

/// A finding worth knowing.
pub(super) fn warn(name: Problem, problem: impl Into<String>, remedy: Remedy) -> Finding {
    Finding::new(true, name, problem.into(), remedy)
}
