//! Statements of a toggle.

use super::{millis, path, quote, shown};
use crate::exec::documents::PageWithin;
use crate::exec::toggles::{Forms, MemberStatement, ToggleStatements, WriteStatements};
use crate::introspection::{IdForm, TimeForm};
use crate::mysql::CHUNK;
use crate::mysql::wire::Template;
use weir_core::config::ToggleTable;

/// Targets whose members are loaded by one statement: each is a part of a UNION.
const TARGETS_PER_UNION: usize = 64;

/// Names, as the statements have them.
struct Names {
    table: String,
    target: String,
    actor: String,
    created: Option<String>,
    shown_actor: String,
    /// The created-at column as Unix milliseconds.
    ms: String,
}

/// The statements of one kind. Targets are numbered from 0.
pub(in crate::mysql) fn statements(table: &ToggleTable, forms: &Forms) -> ToggleStatements<Template> {
    let (target, actor) = (quote(&table.target_column), quote(&table.actor_column));
    let names = Names {
        table: path(&table.name),
        created: table.created_at_column.as_ref().map(|column| quote(column)),
        shown_actor: shown(forms.actor, &actor),
        ms: millis(table.created_at_column.as_ref(), forms.created),
        target,
        actor,
    };
    let Names { table: name, target, shown_actor, ms, .. } = &names;
    let (lock_counts, counts, known) = target_statements(table, forms);
    ToggleStatements {
        write: writes(&names, forms),
        lock_counts,
        counts,
        known,
        members: MemberStatement::Bounded(Template::exact(TARGETS_PER_UNION).numbered(
            "(SELECT CAST(".into(),
            format!(" AS SIGNED), {shown_actor}, {ms} FROM {name} WHERE {target} = ? LIMIT "),
            1,
            ")",
            " UNION ALL ",
        )),
        sizes: Template::exact(1)
            .once(format!("SELECT COUNT(*) FROM (SELECT 1 FROM {name} WHERE {target} = ? LIMIT ?) AS m"), [0, 1]),
        totals: Template::exact(1).once(format!("SELECT COUNT(*) FROM {name} WHERE {target} = ?"), [0]),
        pairs: pairs(&names, forms).text(")"),
        page: page(&names, false),
        within: within(&names, forms),
        delete_plan: delete_plan(&names, forms),
    }
}

fn writes(names: &Names, forms: &Forms) -> WriteStatements<Template> {
    let Names { table, target, actor, created, .. } = names;
    let insert = Template::exact(CHUNK);
    WriteStatements::Looking {
        look: pairs(names, forms).text(") FOR UPDATE"),
        delete: Template::padded(CHUNK)
            .text(format!("DELETE FROM {table} WHERE ({target}, {actor}) IN ("))
            .each("(?, ?)", ", ", [0, 1])
            .text(")"),
        insert: match created {
            Some(created) => insert.text(format!("INSERT INTO {table} ({target}, {actor}, {created}) VALUES ")).each(
                "(?, ?, ?)",
                ", ",
                [0, 1, 2],
            ),
            None => {
                insert.text(format!("INSERT INTO {table} ({target}, {actor}) VALUES ")).each("(?, ?)", ", ", [0, 1])
            }
        },
    }
}

/// Pairs, and their times, up to the end of the list.
fn pairs(names: &Names, forms: &Forms) -> Template {
    let Names { table, target, actor, shown_actor, ms, .. } = names;
    let shown_target = shown(forms.target, target);
    Template::padded(CHUNK)
        .text(format!("SELECT {shown_target}, {shown_actor}, {ms} FROM {table} WHERE ({target}, {actor}) IN ("))
        .each("(?, ?)", ", ", [0, 1])
}

/// A page of members: ? target, three times ? time of the last one before, ? its text, ? limit. With `is_within`, after ?
/// target: ? oldest, ? newer than all; an index on target and time can find them.
fn page(names: &Names, is_within: bool) -> Template {
    let Names { table, target, created, shown_actor, ms, .. } = names;
    let (within, places) = match created {
        Some(created) if is_within => (format!(" AND {created} >= ? AND {created} < ?"), vec![0, 4, 5, 1, 1, 1, 2, 3]),
        _ => (String::new(), vec![0, 1, 1, 1, 2, 3]),
    };
    // Bytes, because text of this engine is equal whatever spaces trail it.
    let text = format!(
        "SELECT a, m FROM (SELECT {shown_actor} AS a, {ms} AS m, CAST({shown_actor} AS BINARY) AS x FROM {table}
             WHERE {target} = ?{within}) AS p
             WHERE ? IS NULL OR m < ? OR (m = ? AND x < CAST(? AS BINARY)) ORDER BY m DESC, x DESC LIMIT ?"
    );
    Template::whole().once(text, places)
}

/// Its start: ? target, ? time of the last one before, ? limit less one. Times that are text have no certain order.
fn within(names: &Names, forms: &Forms) -> Option<PageWithin<Template>> {
    forms.created.filter(|form| *form != TimeForm::Iso)?;
    let Names { table, target, ms, .. } = names;
    let created = names.created.as_ref()?;
    let start = format!(
        "SELECT {ms} FROM {table} WHERE {target} = ? AND {created} < ? ORDER BY {created} DESC LIMIT 1 OFFSET ?"
    );
    Some(PageWithin { start: Template::whole().once(start, [0, 1, 2]), page: page(names, true) })
}

/// `lock_counts`, `counts` and `known`.
fn target_statements(table: &ToggleTable, forms: &Forms) -> (Option<Template>, Option<Template>, Option<Template>) {
    let (Some(targets), Some(form)) = (&table.targets, forms.key) else { return (None, None, None) };
    let (name, key) = (path(&targets.name), quote(&targets.key_column));
    let count = targets.count_column.as_ref().map(|column| quote(column));
    let lock = count.as_ref().map(|_| {
        Template::padded(CHUNK)
            .text(format!("SELECT 1 FROM {name} WHERE {key} IN ("))
            .list()
            .text(format!(") ORDER BY {key} FOR UPDATE"))
            .no_wait(super::NOWAIT)
    });
    let counts = count.as_ref().map(|column| {
        let start = format!("UPDATE {name} SET {column} = GREATEST(CAST(COALESCE({column}, 0) AS SIGNED) + CASE {key}");
        Template::padded(CHUNK)
            .text(start)
            .each(" WHEN ? THEN CAST(? AS SIGNED)", "", [0, 1])
            .text(format!(" ELSE 0 END, 0)\n             WHERE {key} IN ("))
            .list()
            .text(")")
    });
    let shown_count = match count {
        Some(column) => format!("CAST(COALESCE({column}, 0) AS SIGNED)"),
        None => "NULL".to_owned(),
    };
    let known = Template::padded(CHUNK)
        .text(format!("SELECT {}, {shown_count} FROM {name} WHERE {key} IN (", shown(form, &key)))
        .list()
        .text(")");
    (lock, counts, Some(known))
}

/// The plan of the bulk delete, as a table: of what both engines have in JSON, MySQL's newer form says nothing of a DELETE.
fn delete_plan(names: &Names, forms: &Forms) -> Template {
    let Names { table, target, actor, .. } = names;
    let pair = format!("({}, {})", sample(forms.target), sample(forms.actor));
    let text = format!("EXPLAIN FORMAT=TRADITIONAL DELETE FROM {table} WHERE ({target}, {actor}) IN ({pair}, {pair})");
    Template::whole().text(text)
}

/// Any id, for a plan.
fn sample(form: IdForm) -> &'static str {
    match form {
        IdForm::Integer => "1",
        IdForm::UuidBytes => "x'00000000000000000000000000000000'",
        IdForm::Uuid | IdForm::UuidText => "'00000000-0000-0000-0000-000000000000'",
        IdForm::Text => "'a'",
    }
}
