//! A purge as operators ask for it: which keys, prefixes and groups there can be, and what each of them invalidates.
//!
//! What can match nothing is refused by name: a purge that looks done and is not would leave old answers in use.

use crate::admin::{OperationsError, Purge, PurgeTarget};
use crate::cache::{InvalidationLog, PurgeMode};
use crate::read::{Reads, table_group};
use crate::upstream::Upstreams;

/// What begins the group of what depends on a table.
const TABLE: &str = "table:";

/// Invalidates what is asked for.
///
/// # Errors
/// 404 for a key, a prefix or a group that no read and no upstream can have.
pub(super) fn purge(
    reads: &Reads,
    upstreams: &Upstreams,
    invalidations: &InvalidationLog,
    purge: &Purge,
) -> Result<(), OperationsError> {
    let hardness = if purge.soft { PurgeMode::Soft } else { PurgeMode::Hard };
    let missing = |what: &str, text: &str| Err(OperationsError::NotFound(missing(what, text, reads, upstreams)));
    match &purge.what {
        PurgeTarget::Key(key) if reads.has_key(key) => invalidations.invalidate_key(key, hardness),
        PurgeTarget::Key(key) => match upstreams.group_of_key(key) {
            // Its variants have keys of their own.
            Some(group) => invalidations.invalidate_groups([group.as_str()], hardness),
            None => return missing("key", key),
        },
        PurgeTarget::Prefix(prefix) if reads.has_prefix(prefix) || upstreams.has_prefix(prefix) => {
            invalidations.invalidate_prefix(prefix, hardness);
        }
        PurgeTarget::Prefix(prefix) => return missing("prefix", prefix),
        PurgeTarget::Group(group) => {
            let named = group.strip_prefix(TABLE).map_or_else(|| group.clone(), table_group);
            if !reads.has_group(&named) && !upstreams.has_group(&named) {
                return missing("group", group);
            }
            invalidations.invalidate_groups([named.as_str()], hardness);
        }
        PurgeTarget::All => invalidations.invalidate_all(hardness),
    }
    Ok(())
}

/// Says which there are.
fn missing(what: &str, text: &str, reads: &Reads, upstreams: &Upstreams) -> String {
    let (reads, upstreams) = (reads.states(), upstreams.states());
    let forms: Vec<String> = match what {
        "group" => {
            let groups = reads.iter().flat_map(|read| read.groups.iter());
            let mut groups: Vec<String> =
                groups.chain(upstreams.iter().flat_map(|upstream| &upstream.groups)).cloned().collect();
            groups.sort_unstable();
            groups.dedup();
            groups
        }
        _ => reads.into_iter().map(|read| read.key).chain(upstreams.into_iter().map(|one| one.key)).collect(),
    };
    let forms =
        if forms.is_empty() { "none: neither a read nor an upstream is configured".into() } else { forms.join(", ") };
    format!("nothing can be kept under the {what} {text:?}, nothing was purged; there are: {forms}")
}
