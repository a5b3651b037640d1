//! A store that forgets: for tests, and for commands that need no memory.

use std::sync::{PoisonError, RwLock};

use super::{Batch, Model, StateStore, StoreError, apply, scan};

/// Keeps records in memory only.
#[derive(Debug, Default)]
pub struct VolatileStore {
    model: RwLock<Model>,
}

impl StateStore for VolatileStore {
    fn get(&self, key: &str) -> Option<String> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn scan_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        scan(&self.model.read().unwrap_or_else(PoisonError::into_inner), prefix)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        apply(&mut self.model.write().unwrap_or_else(PoisonError::into_inner), &batch);
        Ok(())
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn close(&self) {}
}
