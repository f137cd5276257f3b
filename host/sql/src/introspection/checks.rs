//! Checks that the capabilities have in common: columns and their types, unique keys, what must be given, what else may
//! refuse or discard a row.
//!
//! Knows no engine. Pure: each adds to findings what follows from [`Introspection`].

use super::{Column, Dialect, Holds, IdForm, Introspection, Known, UniqueKey, Wanted, id_form, shape, time_form};
use crate::Finding;
use crate::finding::{Problem, Remedy, refuse, warn};
use weir_core::model::{ID_TEXT_BYTES_MAX, IdType};

/// Columns that must be given, and are none of `given`. `time` is the setting that would have a time be given.
pub(super) fn check_given<D: Dialect>(
    dialect: &D,
    table: &str,
    facts: &Introspection,
    given: &[&str],
    time: Option<&str>,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    for column in facts.columns.iter().filter(|column| column.must_be_given) {
        let name = &column.name;
        if given.contains(&name.as_str()) || shape::is_refused(table, facts, given, name, known) {
            continue;
        }
        let problem = format!("{table}.{name} is NOT NULL without a default, and weir has no value for it");
        if !matches!(column.holds, Holds::Zoned(_) | Holds::Plain(_)) {
            findings.push(refuse(Problem::NotFilled, problem, Remedy::text(format!(
                "give {table}.{name} a DEFAULT that is true of every row that weir writes; or let NULL be there, if your \
                 application takes it for \"unknown\""
            ))));
            continue;
        }
        let setting = time.map(|setting| {
            format!("write {setting} = \"{name}\" in weir.toml, and weir fills it with the time of the request")
        });
        let remedy = match (setting, dialect.default_time(table, column)) {
            (Some(setting), Some(remedy)) => remedy.saying(format!("{setting}; or let the database fill it:")),
            (None, Some(remedy)) => remedy.saying("let the database fill it:"),
            (Some(setting), None) => Remedy::text(setting),
            (None, None) => Remedy::text(format!("create {table} anew with a DEFAULT for {name}")),
        };
        findings.push(refuse(Problem::TimeNotFilled, problem, remedy));
    }
}

/// The unique key on exactly these columns.
pub(super) fn check_unique<D: Dialect>(
    dialect: &D,
    table: &str,
    facts: &Introspection,
    columns: &[&str],
    findings: &mut Vec<Finding>,
) {
    let is_no_table = facts.findings.iter().any(|finding| finding.name == Problem::NotATable);
    let is_whole = columns.iter().all(|column| facts.column(column).is_some());
    if is_no_table || !is_whole || facts.unique_on(columns).is_some() {
        return;
    }
    let list = columns.join(", ");
    let problem = format!("{table} has no unique key on exactly ({list})");
    if let Some(by) = facts.partitioned_by.iter().find(|by| !columns.contains(&by.as_str())) {
        findings.push(refuse(
            Problem::PartitionedOtherwise,
            format!("{problem}, and can have none: it is partitioned by {by}"),
            Remedy::text(format!("partition {table} by columns of the key (by hash of {}, for example)", columns[0])),
        ));
        return;
    }
    match facts.seen.duplicates.iter().find(|(key, _)| key == columns) {
        Some((_, twice)) => {
            let text = "decide which row of each stays and delete the others, then check again; these are there more than once:";
            let query = dialect.duplicates(table, columns, None);
            findings.push(refuse(
                Problem::Duplicates,
                format!("{problem}, and can have none now: rows are there more than once ({})", twice.join("; ")),
                Remedy::run(crate::finding::Advice::ListDuplicates, [query]).saying(text),
            ));
        }
        None => findings.push(refuse(Problem::NoUniqueKey, problem, dialect.add_unique(table, facts, columns))),
    }
}

/// Names what refuses or discards a row that is good by itself: keys beside weir's `own`, which may be met by what is
/// `given` or the same for all rows; triggers and rules on `statements`.
pub(super) fn check_others(
    table: &str,
    facts: &Introspection,
    own: &[&str],
    given: &[&str],
    statements: &[&str],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_own = |key: &UniqueKey| !own.is_empty() && own.iter().all(|name| key.columns.iter().any(|c| c == name));
    let can_collide = |key: &&UniqueKey| {
        let mut columns = key.columns.iter();
        columns.all(|name| given.contains(&name.as_str()) || facts.column(name).is_none_or(|column| column.preset))
    };
    let keys = facts.unique.iter().filter(|key| !is_own(key)).filter(can_collide);
    let described = keys.map(|key| format!("{} ({})", key.name, key.columns.join(", ")));
    for key in described.chain(facts.odd_keys.iter().cloned()) {
        findings.push(warn(
            Problem::OtherKey,
            format!("{table} has another unique key, {key}: of rows that are equal in it the first is stored, and the others become dead letters"),
            Remedy::text("give each row its own value there (a field in weir.toml, or NULL instead of a default), or drop the key"),
        ));
    }
    for skipping in &facts.skipping {
        let on: Vec<&str> = statements.iter().copied().filter(|word| skipping.on.contains(word)).collect();
        if !on.is_empty() {
            findings.push(warn(
                Problem::SkippingTrigger,
                format!(
                    "{} on {table} may discard what weir writes ({}): that becomes dead letters",
                    skipping.name,
                    on.join(", ")
                ),
                Remedy::text("let it raise an error that says why, or move its rule into the policy"),
            ));
        }
    }
    findings
}

/// A column for times.
pub(super) fn check_time<D: Dialect>(
    dialect: &D,
    table: &str,
    name: &str,
    facts: &Introspection,
    findings: &mut Vec<Finding>,
) {
    match facts.column(name) {
        None => findings.push(refuse(Problem::NoTimeColumn, missing(table, name), dialect.add_time(table, name))),
        Some(column) if time_form(column).is_none() => findings.push(refuse(
            Problem::TimeType,
            format!("{table}.{name} is {}, which cannot hold a time in milliseconds", column.declared),
            Remedy::text("make it a timestamp, a 64-bit integer (Unix milliseconds) or text of 24 characters or more"),
        )),
        Some(_) => {}
    }
}

/// A column for the count, which `counted` fills.
pub(super) fn check_count<D: Dialect>(
    dialect: &D,
    table: &str,
    name: &str,
    facts: &Introspection,
    counted: Option<&super::Counted<'_>>,
    findings: &mut Vec<Finding>,
) {
    match facts.column(name) {
        None => {
            findings.push(refuse(
                Problem::NoCountColumn,
                missing(table, name),
                dialect.add_count(table, name, counted),
            ));
        }
        Some(column) if column.generated => findings.push(computed(table, name)),
        Some(_) => check_integer(table, (name, "count"), facts, findings),
    }
}

/// A column for numbers; `what` says which. One that is missing is found elsewhere.
pub(super) fn check_integer(
    table: &str,
    (name, what): (&str, &str),
    facts: &Introspection,
    findings: &mut Vec<Finding>,
) {
    if let Some(column) = facts.column(name).filter(|column| !matches!(column.holds, Holds::Integer(_))) {
        findings.push(refuse(
            Problem::NumberType,
            format!("{table}.{name} is {}, a {what} needs an integer", column.declared),
            Remedy::text(
                "name a column for integers in weir.toml, or make one of 64 bits of this, if it holds nothing else",
            ),
        ));
    }
}

/// A column for numbers that is added where it is missing.
pub(super) fn check_number<D: Dialect>(
    dialect: &D,
    table: &str,
    (name, what): (&str, &str),
    facts: &Introspection,
    findings: &mut Vec<Finding>,
) {
    if facts.column(name).is_none() {
        let wanted = Wanted::IdOrNull(IdType::Integer);
        findings.push(refuse(Problem::NoValueColumn, missing(table, name), dialect.add_value(table, name, wanted)));
    }
    check_integer(table, (name, what), facts, findings);
}

/// A column that cannot be written.
pub(super) fn computed(table: &str, name: &str) -> Finding {
    refuse(
        Problem::Computed,
        format!("{table}.{name} is computed by the database, which takes no value for it"),
        Remedy::text("leave the column out in weir.toml"),
    )
}

/// A column of bits, which weir does not write.
pub(super) fn bits<D: Dialect>(dialect: &D, table: &str, facts: &Introspection, column: &Column) -> Finding {
    let (name, declared) = (&column.name, &column.declared);
    refuse(
        Problem::BitColumn,
        format!("{table}.{name} is {declared}, into which this database takes the characters of a number for its bits"),
        dialect.make_boolean(table, facts, column),
    )
}

fn type_name(id_type: IdType) -> &'static str {
    match id_type {
        IdType::Integer => "integer",
        IdType::Uuid => "uuid",
        IdType::Text => "text",
    }
}

/// A column for ids of a type, which `setting` names.
pub(super) fn check_id<D: Dialect>(
    dialect: &D,
    table: &str,
    (name, setting): (&str, &str),
    id_type: IdType,
    facts: &Introspection,
    findings: &mut Vec<Finding>,
) {
    let Some(column) = facts.column(name) else {
        let remedy = Remedy::text("name the right column in weir.toml");
        findings.push(refuse(Problem::NoIdColumn, missing(table, name), remedy));
        return;
    };
    match id_form(dialect, column, id_type) {
        None => {
            let suits = [IdType::Integer, IdType::Text, IdType::Uuid].into_iter();
            let suits = suits.filter(|other| id_form(dialect, column, *other).is_some());
            let suits: Vec<String> = suits.map(|other| format!("{setting} = \"{}\"", type_name(other))).collect();
            let remedy = match suits.is_empty() {
                true => "name a column with ids of this type in weir.toml; weir has no type for this one".to_owned(),
                false => format!("write {} in weir.toml, or name another column there", suits.join(" or ")),
            };
            findings.push(refuse(
                Problem::IdType,
                format!(
                    "{table}.{name} is {}, which does not suit ids of type {}",
                    column.declared,
                    type_name(id_type)
                ),
                Remedy::text(remedy),
            ));
        }
        Some(IdForm::Text) => {
            findings.extend(column.collation.clone());
            if let Holds::Text(Some(room)) = column.holds
                && room < ID_TEXT_BYTES_MAX as u64
            {
                findings.push(warn(
                    Problem::ShortText,
                    format!(
                        "{table}.{name} holds {room} characters; ids may have {ID_TEXT_BYTES_MAX} bytes, and a longer one \
                         becomes a dead letter"
                    ),
                    dialect.widen_text(table, facts, column),
                ));
            }
        }
        Some(_) => {}
    }
}

/// Columns for integers of fewer than 64 bits, which is what weir's ids and counts have; each with the word for what is in it.
pub(super) fn check_width<D: Dialect>(
    dialect: &D,
    table: &str,
    columns: &[(&str, &str)],
    facts: &Introspection,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, what) in columns {
        let Some(column) = facts.column(name) else { continue };
        let Some(end) = end_of(column) else { continue };
        let largest = facts.seen.largest.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
        let used = match largest {
            Some(value) => {
                let per_mille = (value.max(0) * 1_000 / end).min(1_000);
                format!("the largest is {value} now, {}.{} % of that", per_mille / 10, per_mille % 10)
            }
            None => "how far it is used is not known".to_owned(),
        };
        findings.push(warn(
            Problem::NarrowInteger,
            format!(
                "{table}.{name} is {}, which ends at {end} ({used}); weir's {what} have 64 bits, and one beyond becomes a dead \
                 letter",
                column.declared
            ),
            dialect.widen_integer(table, facts, column),
        ));
    }
    findings
}

/// The greatest value of a column for integers of fewer than 64 bits.
pub(super) fn end_of(column: &Column) -> Option<i128> {
    match column.holds {
        Holds::Integer(bytes) if bytes < 8 => {
            let bits = u32::from(bytes) * 8 - u32::from(!column.unsigned);
            Some((1 << bits) - 1)
        }
        _ => None,
    }
}

/// What is said of a column that is not there.
pub(super) fn missing(table: &str, column: &str) -> String {
    format!("{table} has no column {column}")
}
