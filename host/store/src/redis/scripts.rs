//! The scripts. Each has the prelude before it, in a cluster a check of its slot, and a `#!lua` line with the flags that Redis
//! checks before it runs.

use redis::Script;

/// The scripts of the store.
pub(super) struct Scripts {
    pub(super) toggle: Script,
    pub(super) count: Script,
    pub(super) create: Script,
    pub(super) documents: Script,
    pub(super) owned: Script,
    pub(super) put_settings: Script,
    pub(super) settings: Script,
    pub(super) read: Script,
    pub(super) members: Script,
    pub(super) hydrate: Script,
    pub(super) heads: Script,
    pub(super) journal: Script,
    pub(super) trim: Script,
    pub(super) lost: Script,
    pub(super) sweep: Script,
    pub(super) reset: Script,
    pub(super) wipe: Script,
    pub(super) lease: Script,
    pub(super) explain: Script,
    pub(super) guest_get: Script,
    pub(super) guest_set: Script,
    pub(super) guest_increment: Script,
    /// Operations on a queue, one of which adds a person.
    pub(super) room_join: Script,
    pub(super) room_apply: Script,
    pub(super) room_tick: Script,
    pub(super) room_open: Script,
    pub(super) room_known: Script,
    pub(super) room_forget: Script,
    pub(super) room_unlist: Script,
    pub(super) room_part: Script,
    pub(super) room_list: Script,
    pub(super) versions: Script,
    pub(super) peek: Script,
    pub(super) rename: Script,
    pub(super) unlink: Script,
}

/// Refused when memory is full.
const GROWS: &str = "#!lua\n";
/// Runs when memory is full: it frees some, or needs next to none.
const ALLOW_OOM: &str = "#!lua flags=allow-oom\n";
/// Runs on a read-only or full server too.
const READS: &str = "#!lua flags=no-writes\n";

const PRELUDE: &str = include_str!("prelude.lua");
const SLOT: &str = include_str!("slot.lua");
const FRESH: &str = include_str!("fresh.lua");
const BATCH: &str = include_str!("batch.lua");
const ROOM: &str = include_str!("room.lua");
const ROOM_APPLY: &str = include_str!("room_apply.lua");

impl Scripts {
    pub(super) fn new(is_cluster: bool) -> Self {
        let slot = if is_cluster { SLOT } else { "" };
        let script = |flags: &str, parts: &[&str]| Script::new(&[&[flags, PRELUDE, slot], parts].concat().concat());
        Self {
            toggle: script(GROWS, &[FRESH, BATCH, include_str!("toggle.lua")]),
            count: script(GROWS, &[FRESH, BATCH, include_str!("count.lua")]),
            create: script(GROWS, &[FRESH, BATCH, include_str!("create.lua")]),
            documents: script(READS, &[include_str!("documents.lua")]),
            owned: script(READS, &[include_str!("owned.lua")]),
            put_settings: script(GROWS, &[FRESH, BATCH, include_str!("put_settings.lua")]),
            settings: script(READS, &[include_str!("settings.lua")]),
            read: script(READS, &[include_str!("read.lua")]),
            members: script(READS, &[include_str!("members.lua")]),
            hydrate: script(GROWS, &[FRESH, include_str!("hydrate.lua")]),
            heads: script(ALLOW_OOM, &[FRESH, include_str!("heads.lua")]),
            journal: script(READS, &[include_str!("journal.lua")]),
            trim: script(ALLOW_OOM, &[include_str!("trim.lua")]),
            lost: script(READS, &[include_str!("lost.lua")]),
            sweep: script(ALLOW_OOM, &[include_str!("sweep.lua")]),
            reset: script(ALLOW_OOM, &[FRESH, include_str!("reset.lua")]),
            wipe: script(ALLOW_OOM, &[include_str!("wipe.lua")]),
            lease: script(ALLOW_OOM, &[include_str!("lease.lua")]),
            explain: script(READS, &[include_str!("explain.lua")]),
            guest_get: script(READS, &[include_str!("guest_get.lua")]),
            guest_set: script(GROWS, &[include_str!("guest_set.lua")]),
            guest_increment: script(GROWS, &[include_str!("guest_increment.lua")]),
            room_join: script(GROWS, &[ROOM, ROOM_APPLY]),
            room_apply: script(ALLOW_OOM, &[ROOM, ROOM_APPLY]),
            room_tick: script(ALLOW_OOM, &[ROOM, include_str!("room_tick.lua")]),
            room_open: script(GROWS, &[include_str!("room_open.lua")]),
            room_known: script(GROWS, &[include_str!("room_known.lua")]),
            room_forget: script(ALLOW_OOM, &[include_str!("room_forget.lua")]),
            room_unlist: script(ALLOW_OOM, &[include_str!("room_unlist.lua")]),
            room_part: script(ALLOW_OOM, &[include_str!("room_part.lua")]),
            room_list: script(READS, &[include_str!("room_list.lua")]),
            versions: script(READS, &[include_str!("versions.lua")]),
            peek: script(READS, &[include_str!("peek.lua")]),
            rename: script(ALLOW_OOM, &[include_str!("rename.lua")]),
            unlink: script(ALLOW_OOM, &[include_str!("unlink.lua")]),
        }
    }

    /// All of them, to be loaded at each connection.
    pub(super) fn all(&self) -> [&Script; 35] {
        [
            &self.toggle,
            &self.count,
            &self.create,
            &self.documents,
            &self.owned,
            &self.put_settings,
            &self.settings,
            &self.read,
            &self.members,
            &self.hydrate,
            &self.heads,
            &self.journal,
            &self.trim,
            &self.lost,
            &self.sweep,
            &self.reset,
            &self.wipe,
            &self.lease,
            &self.explain,
            &self.guest_get,
            &self.guest_set,
            &self.guest_increment,
            &self.room_join,
            &self.room_apply,
            &self.room_tick,
            &self.room_open,
            &self.room_known,
            &self.room_forget,
            &self.room_unlist,
            &self.room_part,
            &self.room_list,
            &self.versions,
            &self.peek,
            &self.rename,
            &self.unlink,
        ]
    }
}
