//! One conformance suite over the SQL servers, each a real one: SQLite in a temporary file, the rest started here, what the
//! machine's distribution has and what `tests/servers` has fetched. Every function takes a fixture with an empty database and
//! runs once per server; each says of which version it was.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod claims;
mod counters;
mod dead_letters;
mod documents;
mod effects;
mod faults;
mod fixture;
mod flush;
mod granted;
mod ids;
mod load;
mod locks;
mod numbers;
mod remedies;
mod selfcheck;
mod selfcheck_kinds;
mod settings;
mod values;

/// Runs functions over a fixture on one server.
macro_rules! on {
    ($server:ident; $($module:ident: $($name:ident),+;)+) => {
        const TESTS: usize = [$($(stringify!($name)),+),+].len();

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn says_its_version() {
            crate::fixture::says_its_version(crate::fixture::Server::$server, TESTS).await;
        }

        $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            crate::$module::$name(&crate::fixture::Fixture::new(crate::fixture::Server::$server).await).await;
        })+)+
    };
}

/// Runs functions over a fixture, once per server.
macro_rules! conformance {
    ($($functions:tt)+) => {
        mod sqlite {
            on! { Sqlite; $($functions)+ }
        }
        mod postgres {
            on! { Postgres; $($functions)+ }
        }
        mod postgres_current {
            on! { PostgresCurrent; $($functions)+ }
        }
        mod postgres_pooled {
            on! { PostgresPooled; $($functions)+ }
        }
        mod mariadb {
            on! { MariaDb; $($functions)+ }
        }
        mod mariadb_current {
            on! { MariaDbCurrent; $($functions)+ }
        }
        mod mysql {
            on! { MySql; $($functions)+ }
        }
    };
}

conformance! {
    flush: a_flush_moves_checkpoint_rows_and_counts_together, a_zombie_commits_nothing,
        deltas_come_from_rows_really_changed, ten_thousand_mixed_rows, a_flush_over_many_partitions,
        an_empty_flush_moves_the_checkpoint, a_count_is_never_below_zero, a_missing_target_row_keeps_no_count,
        two_kinds_on_one_table_of_targets_do_not_deadlock, a_dropped_flush_leaves_nothing_behind;
    dead_letters: one_bad_row_among_a_thousand, a_row_that_breaks_a_foreign_key, a_text_that_is_too_long,
        a_number_that_is_too_large, all_rows_bad, a_row_that_breaks_another_unique_key,
        schema_errors_are_nobodys_dead_letter, a_column_that_weir_cannot_fill_is_nobodys_dead_letter,
        dead_letters_are_listed_replayed_and_dropped;
    claims: a_claim_creates_raises_and_respects, a_hole_is_recorded_once_by_the_step_that_leaves_it_behind, two_claimers_agree, migrations_run_at_once,
        schema_one_is_upgraded_with_its_rows,
        a_later_schema_is_refused, the_number_of_partitions_is_recorded, another_database_claims_nothing, journals_are_noted;
    load: whole_huge_and_missing_targets, huge_without_a_count_column, without_a_table_of_targets,
        pairs_are_found_in_order, members_are_paged_newest_first_with_ties,
        members_are_paged_by_native_times_and_none, explain_tells_row_count_and_rows,
        a_huge_target_is_recognised_by_its_count_column;
    ids: every_id_type, hostile_texts, every_kind_of_created_at, document_ids_of_every_type;
    selfcheck: good_tables_pass, a_missing_unique_key_is_mended_by_the_printed_statement,
        missing_tables_are_mended_by_the_printed_statements, unsuitable_columns_are_named,
        text_is_compared_by_bytes, the_server_is_checked;
    selfcheck_kinds: good_counters_pass, good_documents_pass, missing_tables_are_created_by_the_printed_statements,
        columns_that_do_not_fit_are_named, columns_that_nobody_fills_are_refused, slow_reads_are_told;
    granted: parameters_of_every_type, columns_of_every_type, other_types_are_refused_by_name,
        each_row_of_parameters_has_its_rows, what_one_call_may_find_is_bounded, a_statement_writes_only_when_it_may,
        mistakes_are_told_from_outages, a_slow_statement_leaves_the_pool_usable,
        modules_leave_connections_to_the_host, a_call_sees_one_snapshot, values_arrive_as_they_were_given;
    counters: sums_are_added_and_null_is_zero, many_sums_are_few_statements, a_vanished_target_is_dead_alone,
        a_sum_that_leaves_the_range_is_dead_alone, sixty_four_bits_are_exact, events_are_inserted_beside_their_counts,
        a_bad_event_is_dead_alone_and_its_count_stays, a_zombie_adds_nothing, counts_are_loaded_in_order,
        counters_of_every_id_type, counts_and_events_are_replayed_once, counters_on_one_table_do_not_deadlock,
        a_changed_table_is_nobodys_dead_letter, rows_of_another_capability_are_refused;
    documents: documents_come_back_as_they_were, a_thousand_documents_are_few_statements,
        one_bad_document_among_a_thousand, every_way_to_be_bad, a_zombie_creates_nothing,
        tables_that_take_no_document_are_nobodys_dead_letter, rejections_tell_the_newest_letter,
        a_document_is_replayed_once, an_actors_documents_are_paged_newest_first, nested_values_of_every_shape;
    values: values_of_every_type, odd_texts, json_beyond_an_engine_is_stored_whole_or_dead_alone, large_documents_are_inserted_in_parts, nul_is_stored_or_refused_never_cut, what_would_be_bent_is_refused,
        a_changed_column_is_nobodys_dead_letter,
        defaults_are_used_where_null_cannot_be;
    settings: settings_come_back_as_they_were, only_what_changes_is_written_and_new_rows_have_defaults,
        thousands_of_settings_are_few_statements, one_bad_row_of_settings_is_dead_alone, a_zombie_sets_nothing,
        settings_are_replayed_once, tables_of_settings_are_checked;
    effects: skipped_likes_are_dead_alone, likes_that_cannot_be_counted_are_dead,
        another_unique_key_swallows_no_settings, skipped_settings_are_dead_alone,
        updates_that_change_nothing_may_be_suppressed, skipped_counts_and_events_are_dead_alone,
        skipped_documents_are_dead_with_all_that_is_nested, a_table_that_ignores_or_replaces_is_overruled,
        other_keys_and_triggers_are_named;
    locks: a_locked_target_waits_alone_and_comes_later, a_target_is_stored_whole_or_waits_whole,
        a_count_waits_with_its_events, who_holds_a_lock_is_told;
    numbers: changes_of_settings_take_a_number_for_each_new_row, likes_that_are_there_take_no_number,
        a_sequence_without_a_number_holds_the_kind_back;
    faults: a_lock_held_by_another_session_is_transient, rows_locked_by_another_session_are_waited_for;
}

/// The same functions over TLS, once per server: few, because nothing but the connection is another one.
macro_rules! over_tls {
    ($($functions:tt)+) => {
        mod postgres_tls {
            on! { PostgresTls; $($functions)+ }
        }
        mod mariadb_tls {
            on! { MariaDbTls; $($functions)+ }
        }
        mod mysql_tls {
            on! { MySqlTls; $($functions)+ }
        }
    };
}

over_tls! {
    flush: a_flush_moves_checkpoint_rows_and_counts_together, a_zombie_commits_nothing, ten_thousand_mixed_rows,
        a_dropped_flush_leaves_nothing_behind;
    dead_letters: one_bad_row_among_a_thousand, dead_letters_are_listed_replayed_and_dropped;
    claims: two_claimers_agree, migrations_run_at_once;
    load: whole_huge_and_missing_targets, members_are_paged_newest_first_with_ties;
    ids: hostile_texts;
    selfcheck: good_tables_pass, the_server_is_checked;
    granted: a_slow_statement_leaves_the_pool_usable;
    counters: many_sums_are_few_statements;
    documents: a_thousand_documents_are_few_statements;
    settings: thousands_of_settings_are_few_statements;
    locks: who_holds_a_lock_is_told;
    faults: rows_locked_by_another_session_are_waited_for;
}
