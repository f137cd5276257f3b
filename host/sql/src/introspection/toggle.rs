//! Forms and findings of the tables of a toggle.

use super::checks::{check_count, check_given, check_id, check_others, check_time, check_unique, check_width};
use super::look::same_form;
use super::{
    Counted, Counts, Dialect, IdForm, Introspection, Known, TimeForm, Wanted, created_form, id_form, insert_mismatch,
    shape, usable,
};
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::{Finding, SqlError};
use weir_core::config::{CountTable, ToggleTable};

/// Targets whose counts differ and that are named.
const TARGETS_NAMED: usize = 3;

/// The forms of a kind's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forms {
    /// Of the target column.
    pub target: IdForm,
    /// Of the actor column.
    pub actor: IdForm,
    /// Of the created-at column.
    pub created: Option<TimeForm>,
    /// Of the key of the table of the targets.
    pub key: Option<IdForm>,
}

/// The forms, or the first finding that makes the tables unusable.
pub(crate) fn forms<D: Dialect>(
    dialect: &D,
    table: &ToggleTable,
    pairs: Option<&Introspection>,
    targets: Option<&Introspection>,
) -> Result<Forms, SqlError> {
    let found = || {
        let pairs = pairs?;
        let key = match &table.targets {
            None => None,
            Some(given) => Some(id_form(dialect, targets?.column(&given.key_column)?, table.target_type)?),
        };
        Some(Forms {
            target: id_form(dialect, pairs.column(&table.target_column)?, table.target_type)?,
            actor: id_form(dialect, pairs.column(&table.actor_column)?, table.actor_type)?,
            created: created_form(pairs, table.created_at_column.as_ref())?,
            key,
        })
    };
    usable(found(), || check(dialect, table, pairs, targets, Known::Everything))
}

/// What makes every insert into the table of the pairs fail.
pub(crate) fn mismatch<D: Dialect>(dialect: &D, table: &ToggleTable, pairs: Option<&Introspection>) -> Option<String> {
    insert_mismatch(dialect, &table.name, pairs, &given(table))
}

/// All findings that follow from the catalogue, and from what was seen of the rows.
pub(crate) fn check<D: Dialect>(
    dialect: &D,
    table: &ToggleTable,
    pairs: Option<&Introspection>,
    targets: Option<&Introspection>,
    known: Known<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match pairs {
        None => {
            let problem = format!("table {} does not exist", table.name);
            findings.push(refuse(Problem::NoTable, problem, create_pairs(dialect, table)));
        }
        Some(facts) => check_pairs(dialect, table, facts, targets, &known, &mut findings),
    }
    if let Some(given) = &table.targets {
        match targets {
            None => {
                let remedy = create_targets(dialect, table, given).saying(
                    "name the table of your targets in weir.toml, or create it and fill it (what is not in it cannot be \
                     changed):",
                );
                findings.push(refuse(Problem::NoTable, format!("table {} does not exist", given.name), remedy));
            }
            Some(facts) => {
                check_targets(dialect, table, given, facts, pairs, &known, &mut findings);
            }
        }
    }
    findings
}

fn create_pairs<D: Dialect>(dialect: &D, table: &ToggleTable) -> Remedy {
    let mut columns = vec![
        (&*table.target_column, Wanted::Id(table.target_type)),
        (&table.actor_column, Wanted::Id(table.actor_type)),
    ];
    columns.extend(table.created_at_column.as_deref().map(|created| (created, Wanted::Time)));
    dialect.create(&table.name, &columns, &[&table.target_column, &table.actor_column])
}

fn create_targets<D: Dialect>(dialect: &D, table: &ToggleTable, targets: &CountTable) -> Remedy {
    let mut columns = vec![(&*targets.key_column, Wanted::Id(table.target_type))];
    columns.extend(targets.count_column.as_deref().map(|count| (count, Wanted::Count)));
    dialect.create(&targets.name, &columns, &[&targets.key_column])
}

fn check_pairs<D: Dialect>(
    dialect: &D,
    table: &ToggleTable,
    facts: &Introspection,
    targets: Option<&Introspection>,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(facts.findings.iter().cloned());
    let (name, target, actor) = (&table.name, &*table.target_column, &*table.actor_column);
    check_id(dialect, name, (target, "target_type"), table.target_type, facts, findings);
    check_id(dialect, name, (actor, "actor_type"), table.actor_type, facts, findings);
    if let Some(created) = &table.created_at_column {
        check_time(dialect, name, created, facts, findings);
    }
    let given = given(table);
    let misunderstood = shape::check_pairs(name, facts, &given, known);
    // A key on the pair alone would forbid rows that differ only in the further column.
    if misunderstood.is_empty() {
        check_unique(dialect, name, facts, &[target, actor], findings);
    }
    findings.extend(misunderstood);
    let time = table.created_at_column.is_none().then_some("created_at_column");
    check_given(dialect, name, facts, &given, time, known, findings);
    findings.extend(check_others(name, facts, &[target, actor], &given, &["INSERT", "DELETE"]));
    if let Some(counts) = &table.targets
        && let Some(count) = &counts.count_column
    {
        let setting = "count_column of [toggle.table.targets]";
        findings.extend(shape::check_counting(dialect, (name, facts), (&counts.name, count), setting, known));
    }
    // Where the targets' own key is as narrow, no other can be asked for.
    let key = table.targets.as_ref().zip(targets).and_then(|(given, facts)| facts.column(&given.key_column));
    let is_bound = key.zip(facts.column(target)).is_some_and(|(key, target)| key.holds == target.holds);
    let ids: &[(&str, &str)] = if is_bound { &[(actor, "ids")] } else { &[(target, "ids"), (actor, "ids")] };
    findings.extend(check_width(dialect, name, ids, facts));
}

/// The columns that weir fills.
fn given(table: &ToggleTable) -> Vec<&str> {
    let created = table.created_at_column.as_deref();
    [&*table.target_column, &table.actor_column].into_iter().chain(created).collect()
}

/// The counts of a toggle, and the rows that they count, where both name targets in the same form.
pub(super) fn counted<'t, D: Dialect>(
    dialect: &D,
    table: &'t ToggleTable,
    pairs: Option<&Introspection>,
    targets: Option<&Introspection>,
) -> Option<Counted<'t>> {
    let given = table.targets.as_ref()?;
    let form = same_form(dialect, table.target_type, (pairs?, &table.target_column), (targets?, &given.key_column))?;
    Some(Counted {
        table: &given.name,
        key: &given.key_column,
        count: given.count_column.as_deref()?,
        form,
        rows: &table.name,
        target: &table.target_column,
        by: None,
    })
}

fn check_targets<D: Dialect>(
    dialect: &D,
    table: &ToggleTable,
    given: &CountTable,
    facts: &Introspection,
    pairs: Option<&Introspection>,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    let (name, key) = (&given.name, &*given.key_column);
    findings.extend(facts.findings.iter().cloned());
    check_id(dialect, name, (key, "target_type"), table.target_type, facts, findings);
    check_unique(dialect, name, facts, &[key], findings);
    let mapped: Vec<&str> = [key].into_iter().chain(given.count_column.as_deref()).collect();
    findings.extend(shape::check_targets(name, facts, &mapped, known));
    findings.extend(check_width(dialect, name, &[(key, "ids")], facts));
    if let Some(count) = &given.count_column {
        let counted = counted(dialect, table, pairs, Some(facts));
        check_count(dialect, name, count, facts, counted.as_ref(), findings);
        findings.extend(check_others(name, facts, &[key], &[count], &["UPDATE"]));
        findings.extend(check_width(dialect, name, &[(count, "counts")], facts));
        findings.extend(counted.and_then(|counted| check_counts(dialect, &counted, &facts.seen.counts)));
    }
}

/// Counts that are not the numbers of rows.
fn check_counts<D: Dialect>(dialect: &D, counted: &Counted<'_>, counts: &Counts) -> Option<Finding> {
    let Counted { table, count, rows, .. } = counted;
    match counts {
        Counts::Unasked => None,
        Counts::Unknown(reason) => Some(warn(
            Problem::CountsUnknown,
            format!(
                "whether {table}.{count} equals the rows of {rows} could not be seen within sql.check_timeout_ms: {reason}"
            ),
            dialect.compare_counts(counted).saying("compare them when there is time; these differ:"),
        )),
        Counts::Compared(_, differing) if differing.is_empty() => None,
        Counts::Compared(compared, differing) => {
            let named = differing.iter().take(TARGETS_NAMED);
            let named: Vec<String> =
                named.map(|(key, count, rows)| format!("{key} has {count}, and its rows are {rows}")).collect();
            let problem = format!(
                "{table}.{count} is not the number of rows in {rows}, in {} of the {compared} targets that were compared ({}); \
                 weir adds to it what changes, so it would stay wrong",
                differing.len(),
                named.join("; ")
            );
            let text = "make the counts what the rows say, then check again, which compares them:";
            Some(warn(Problem::CountsDiffer, problem, dialect.fill_counts(counted).saying(text)))
        }
    }
}
