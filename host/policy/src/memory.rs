//! Lifetime of an instance: how much memory it may take.

use wasmtime::ResourceLimiter;

/// Bounds the linear memories and tables of one instance.
pub(super) struct MemoryLimit {
    bytes: usize,
    bytes_max: usize,
    table_elements_max: usize,
}

impl MemoryLimit {
    /// All memories together at most `bytes_max`, each table at most `table_elements_max`.
    pub(super) fn new(bytes_max: usize, table_elements_max: usize) -> Self {
        Self { bytes: 0, bytes_max, table_elements_max }
    }

    /// Over three quarters of the limit are in use. Linear memory never shrinks, so an instance that leaks would end in
    /// the middle of some batch; it is replaced between two calls instead.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.bytes > self.bytes_max / 4 * 3
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        let fits = bytes <= self.bytes_max;
        if fits {
            self.bytes = bytes;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements_max)
    }
}
