//! The contract of the store, run against both implementations: the embedded one on a real directory, the other on a
//! real Redis (of the machine, and of today), a real Valkey and a real Redis Cluster of three masters and three replicas.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "store_conformance/binding.rs"]
mod binding;
#[path = "store_conformance/chain.rs"]
mod chain;
#[path = "store_conformance/cluster_only.rs"]
mod cluster_only;
#[path = "store_conformance/counters.rs"]
mod counters;
#[path = "store_conformance/documents.rs"]
mod documents;
#[path = "store_conformance/embedded_only.rs"]
mod embedded_only;
#[path = "store_conformance/guest.rs"]
mod guest;
#[path = "store_conformance/journal.rs"]
mod journal;
#[path = "store_conformance/life.rs"]
mod life;
#[path = "store_conformance/redis_only.rs"]
mod redis_only;
#[path = "store_conformance/rooms.rs"]
mod rooms;
#[path = "store_conformance/settings.rs"]
mod settings;
#[path = "store_conformance/stand.rs"]
mod stand;
#[path = "store_conformance/state.rs"]
mod state;
#[path = "store_conformance/together.rs"]
mod together;
#[path = "store_conformance/toggles.rs"]
mod toggles;
#[path = "store_conformance/windows.rs"]
mod windows;

/// Makes a test of each function that takes a backend.
macro_rules! on {
    ($backend:ident; $($room:ident::$name:ident),*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn says_its_version() {
            super::stand::says_its_version::<super::stand::$backend>([$(stringify!($name)),*].len());
        }

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            super::$room::$name::<super::stand::$backend>().await;
        })*
    };
}

/// Makes `embedded::name`, `redis::name`, and so on, of each function that takes a backend.
macro_rules! on_each {
    ($($room:ident::$name:ident),* $(,)?) => {
        mod embedded {
            on! { Embedded; $($room::$name),* }
        }
        mod redis {
            on! { OnRedis; $($room::$name),* }
        }
        mod redis_8 {
            on! { OnRedis8; $($room::$name),* }
        }
        mod valkey {
            on! { OnValkey; $($room::$name),* }
        }
        mod cluster {
            on! { OnCluster; $($room::$name),* }
        }
    };
}

/// The same for stores on keys that an operator can reach.
macro_rules! on_keys {
    ($($name:ident),* $(,)?) => {
        mod redis_keys {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::chain::$name::<super::stand::OnRedis>().await;
            })*
        }
        mod redis_8_keys {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::chain::$name::<super::stand::OnRedis8>().await;
            })*
        }
        mod valkey_keys {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::chain::$name::<super::stand::OnValkey>().await;
            })*
        }
        mod cluster_keys {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::chain::$name::<super::stand::OnCluster>().await;
            })*
        }
    };
}

/// The same on a Redis over TLS: few, because nothing but the connection is another one.
macro_rules! over_tls {
    ($($room:ident::$name:ident),* $(,)?) => {
        mod redis_tls {
            on! { OnTls; $($room::$name),* }
        }
    };
}

over_tls! {
    state::a_loaded_target_answers_for_sql,
    state::a_large_load_is_taken_whole,
    state::many_members_are_all_listed_once,
    toggles::an_idempotency_key_answers_the_first_outcome_again,
    toggles::a_batch_of_thousands_is_one_step,
    journal::the_journal_is_read_in_pages,
    binding::a_journal_belongs_to_one_database,
    life::lost_data_is_a_new_life,
    life::what_was_acknowledged_survives_a_crash,
    life::the_store_says_what_survives,
    counters::hits_add_what_they_weigh,
    rooms::random_operations_agree_with_a_model,
}

on_keys! {
    each_hole_is_found_and_counted,
    what_follows_a_hole_is_kept_and_what_was_lost_is_not_known_any_more,
    an_entry_that_goes_between_reading_and_trimming_is_no_loss,
    a_stream_of_another_partition_or_time_is_not_taken_for_this_one,
    what_a_hole_leaves_in_the_state_is_named_and_forgotten,
    entries_of_the_format_before_are_followed,
}

on_each! {rooms::a_person_has_one_place_and_positions_only_shrink, rooms::the_capacity_holds_whatever_is_asked_for, rooms::whoever_does_not_ask_goes_and_whoever_asks_stays, rooms::stays_are_claimed_extended_and_over, rooms::a_standstill_is_charged_to_nobody, rooms::places_survive_a_crash, rooms::a_lost_store_is_another_life, rooms::a_draw_is_reproduced_from_its_seed_and_log, rooms::queues_are_bounded_and_make_room_when_idle, rooms::a_queue_where_somebody_is_makes_no_room, rooms::an_idle_queue_is_nobodys, rooms::random_operations_agree_with_a_model,
    state::a_target_is_cold_until_it_is_loaded,
    state::a_loaded_target_answers_for_sql,
    state::a_missing_target_is_refused_and_forgotten_after_its_ttl,
    state::a_load_must_be_of_this_incarnation,
    state::a_load_must_not_be_older_than_the_trim_point,
    state::a_load_must_not_be_older_than_the_floor,
    state::what_is_known_is_not_loaded_over,
    state::a_large_load_is_taken_whole,
    state::a_huge_target_knows_only_the_pairs_it_was_told,
    state::a_huge_target_lists_only_what_sql_may_not_hold,
    state::known_pairs_of_a_huge_target_are_bounded,
    state::members_come_newest_first_in_pages,
    state::many_members_are_all_listed_once,
    state::ids_of_every_type_are_read_back,
    state::a_clean_target_expires_and_a_dirty_one_does_not,
    toggles::rules_are_evaluated_against_the_state,
    toggles::each_operation_sees_those_before_it,
    toggles::positions_say_where_an_answer_lies,
    toggles::a_limit_lets_its_burst_pass_and_refills,
    toggles::what_is_refused_does_not_count,
    toggles::limits_are_per_target_and_actor,
    toggles::an_idempotency_key_answers_the_first_outcome_again,
    toggles::an_idempotency_key_belongs_to_one_request,
    toggles::only_evaluated_outcomes_are_remembered,
    toggles::an_idempotency_key_is_forgotten_after_its_ttl,
    toggles::a_batch_of_thousands_is_one_step,
    journal::a_batch_is_one_entry_per_partition,
    journal::the_journal_is_read_in_pages,
    journal::the_backlog_is_what_waits,
    journal::a_trim_of_another_life_or_an_older_place_does_nothing,
    journal::a_journal_of_another_life_says_so,
    journal::a_position_that_is_no_entry_is_a_rewind,
    journal::a_journal_behind_sqls_life_drops_what_sql_has_and_keeps_the_rest,
    journal::an_invalid_target_becomes_cold,
    journal::an_invalid_target_with_newer_entries_becomes_cold_when_clean,
    binding::a_journal_belongs_to_one_database,
    binding::what_is_held_is_told_and_dropped,
    life::heads_are_made_once,
    life::kinds_do_not_meet,
    life::lost_data_is_a_new_life,
    life::a_reset_starts_a_new_life_and_keeps_the_journal,
    life::a_reset_of_an_empty_journal_can_be_loaded_at_once,
    life::wiped_state_is_loaded_again_after_the_flush,
    life::what_was_acknowledged_survives_a_crash,
    life::another_number_of_partitions_is_refused,
    life::one_owner_holds_the_lease,
    life::explain_tells_state_head_and_journal,
    life::explain_tells_of_counters_and_documents,
    life::the_store_says_what_survives,
    counters::a_counter_is_cold_until_it_is_loaded,
    counters::hits_add_what_they_weigh,
    counters::each_hit_sees_those_before_it,
    counters::a_count_stays_in_its_range,
    counters::a_limit_counts_every_hit_that_it_lets_pass,
    windows::a_pair_counts_once_within_its_window,
    windows::a_full_table_forgets_first_what_goes_first,
    windows::a_table_of_another_size_remembers_anew,
    counters::an_idempotency_key_answers_the_first_count_again,
    counters::a_flushed_counter_is_clean,
    counters::wiped_counters_are_loaded_again_after_the_flush,
    counters::counts_and_windows_survive_a_crash,
    counters::capabilities_do_not_take_each_others_state,
    counters::a_batch_of_thousands_of_hits_is_one_step,
    documents::a_document_waits_until_it_is_flushed,
    documents::a_request_is_accepted_whole_or_not_at_all,
    documents::each_request_sees_those_before_it,
    documents::an_id_from_outside_is_taken_once,
    documents::an_idempotency_key_answers_the_first_create_again,
    documents::an_actors_documents_come_newest_first,
    documents::what_waits_outlives_crashes_wipes_and_new_lives,
    documents::a_trim_takes_what_it_drops,
    documents::documents_of_every_kind_are_read_back,
    documents::thousands_of_documents_are_one_step,
    documents::a_journal_of_large_documents_is_read_in_steps,
    documents::a_partition_that_is_not_is_refused,
    settings::a_member_is_cold_until_it_is_loaded,
    settings::each_change_is_laid_over_those_before_it,
    settings::an_idempotency_key_answers_the_first_change_again,
    settings::thousands_of_members_are_read_in_order,
    settings::changes_survive_a_crash_and_are_clean_after_the_flush,
    settings::settings_are_no_other_capabilitys_state,
    guest::a_module_finds_what_it_kept,
    guest::modules_do_not_see_each_other,
    guest::counters_count_in_order,
    guest::what_cannot_be_counted_changes_nothing,
    guest::what_was_kept_is_forgotten_after_its_time,
    guest::concurrent_increments_are_counted_exactly,
    together::concurrent_toggles_of_one_pair_are_counted_exactly,
    together::concurrent_hits_are_counted_exactly,
    together::random_histories_end_in_the_same_sql,
    together::random_counts_end_in_the_same_sql,
    together::random_creates_end_in_the_same_sql,
}
