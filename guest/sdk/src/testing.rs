//! What stands for the host in native tests. Per thread, so that tests do not meet.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Level;

thread_local! {
    static SETTINGS: RefCell<BTreeMap<(String, String), String>> = const { RefCell::new(BTreeMap::new()) };
    static LOGGED: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Sets what [`setting`](crate::setting) returns on this thread.
pub fn set(kind: &str, key: &str, value: &str) {
    SETTINGS.with_borrow_mut(|settings| settings.insert((kind.to_owned(), key.to_owned()), value.to_owned()));
}

/// Takes the lines that were logged on this thread.
pub fn logged() -> Vec<(Level, String)> {
    LOGGED.take()
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn get(kind: &str, key: &str) -> Option<String> {
    SETTINGS.with_borrow(|settings| settings.get(&(kind.to_owned(), key.to_owned())).cloned())
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn log(level: Level, message: &str) {
    LOGGED.with_borrow_mut(|logged| logged.push((level, message.to_owned())));
}
