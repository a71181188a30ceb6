//! Files that were changed while their pages are locked.
//!
//! Registered pages outlive a cut of their file, but are not the file's when it is whole again: a copy
//! from them would bring old bytes without a word. So a file is *settled* before work that reads it is
//! put: it is asked for its length and when it was changed, and once it has changed what is registered
//! is let go and what was copied is copied again. Invariant: what is registered or copied of an entry is
//! of the state of the file that the entry has seen.
//!
//! Pages that work may read are let go only by who holds [`Files::pages`] alone, after the device was
//! waited for.

use super::files::Files;
use super::registry::unknown;
use crate::cuda::driver::Bound;
use crate::{Error, Slice};
use std::sync::{PoisonError, RwLockReadGuard};

impl Files {
    /// Makes sure that the files of these slices are whole, and that what is registered and copied of
    /// them is of the files as they are. Until the answer is dropped nobody lets go of that.
    pub fn settle<'a>(
        &self,
        bound: &Bound<'_>,
        slices: impl Iterator<Item = &'a Slice>,
    ) -> Result<Option<RwLockReadGuard<'_, ()>>, Error> {
        let mapped: Vec<&Slice> = slices.filter(|s| s.is_mapping() && !s.is_empty()).collect();
        if mapped.is_empty() {
            return Ok(None);
        }
        loop {
            let reading = self.pages.read().unwrap_or_else(PoisonError::into_inner);
            let Some(id) = self.stale(&mapped)? else {
                return Ok(Some(reading));
            };
            drop(reading);
            let _alone = self.pages.write().unwrap_or_else(PoisonError::into_inner);
            self.refresh(bound, id)?;
        }
    }

    /// The first file that has changed since its pages were registered or copied.
    fn stale(&self, mapped: &[&Slice]) -> Result<Option<u64>, Error> {
        let state = self.lock();
        for slice in mapped {
            let id = state.find(slice)?;
            let entry = state.entries.get(&id).ok_or_else(unknown)?;
            if entry.stale(entry.file.changed()?).is_some() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Lets go of what is registered of a file that has changed, and copies again what was copied.
    /// Nobody else may put work that reads it.
    fn refresh(&self, bound: &Bound<'_>, id: u64) -> Result<(), Error> {
        let mut state = self.lock();
        let entry = state.entries.get(&id).ok_or_else(unknown)?;
        let Some(now) = entry.stale(entry.file.changed()?) else {
            return Ok(());
        };
        if entry.holds() {
            // Copies and kernels that are under way read the pages.
            bound.synchronize()?;
            state.unregister(id);
        }
        let entry = state.entries.get_mut(&id).ok_or_else(unknown)?;
        for (range, pinned) in &mut entry.copies {
            // SAFETY: the device was waited for, and nobody puts work that reads them meanwhile.
            let target = unsafe { pinned.bytes_mut() };
            entry.file.read(range.start, target)?;
        }
        entry.is_of(now);
        Ok(())
    }
}
