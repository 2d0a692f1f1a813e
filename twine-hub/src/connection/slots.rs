//! Numbered places for what a shard holds many of.
//!
//! A vector would move all of them each time it grows, for milliseconds where they are many and of some size,
//! and leave as much memory behind as they take.

/// Places that are made at once.
const CHUNK: usize = 256;

/// Values by the numbers of their slots, which are used again.
pub(super) struct Slots<T> {
    /// All of them are full but the last.
    chunks: Vec<Vec<Slot<T>>>,
    /// The slot that is taken next; one that does not exist yet where none is free.
    next: u32,
    len: usize,
}

enum Slot<T> {
    Taken(T),
    /// Free, and so is this one.
    Free(u32),
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), next: 0, len: 0 }
    }
}

impl<T> Slots<T> {
    /// How many are taken.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot that the next value gets.
    pub(super) fn vacant(&self) -> u32 {
        self.next
    }

    /// Puts a value into [`Slots::vacant`], and says which that was.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let slot = self.next;
        self.len += 1;
        if let Some(place) = self.place(slot) {
            if let Slot::Free(next) = std::mem::replace(place, Slot::Taken(value)) {
                self.next = next;
            }
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(Slot::Taken(value));
        }
        self.next = slot + 1;
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        match self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.place(slot)? {
            Slot::Taken(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Takes a value out. Its slot is the next to be taken.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let next = self.next;
        let place = self.place(slot)?;
        if let Slot::Free(_) = place {
            return None;
        }
        let Slot::Taken(value) = std::mem::replace(place, Slot::Free(next)) else { return None };
        self.next = slot;
        self.len -= 1;
        Some(value)
    }

    /// All values and their slots, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.chunks.iter().flatten()).filter_map(|(slot, place)| match place {
            Slot::Taken(value) => Some((slot, value)),
            Slot::Free(_) => None,
        })
    }

    fn place(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Held against a map, and that slots are used again before new ones are made.
        #[test]
        fn a_value_is_where_it_was_put_until_it_is_removed(
            steps in proptest::collection::vec((any::<bool>(), 0u32..700), 0..2000)
        ) {
            let (mut slots, mut model, mut most) = (Slots::default(), BTreeMap::new(), 0);
            for (value, (inserts, slot)) in steps.into_iter().enumerate() {
                if inserts {
                    let vacant = slots.vacant();
                    prop_assert_eq!(slots.insert(value), vacant);
                    prop_assert_eq!(model.insert(vacant, value), None);
                    most = most.max(model.len());
                    prop_assert!((vacant as usize) < most);
                } else {
                    prop_assert_eq!(slots.remove(slot), model.remove(&slot));
                }
                prop_assert_eq!(slots.get(slot), model.get(&slot));
                prop_assert_eq!(slots.get_mut(slot), model.get_mut(&slot));
                prop_assert_eq!((slots.len(), slots.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert_eq!(slots.iter().collect::<Vec<_>>(), model.iter().map(|(k, v)| (*k, v)).collect::<Vec<_>>());
        }
    }
}
