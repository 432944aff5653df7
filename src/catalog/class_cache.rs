//! Caches a value for each of a few classes of clients.
//!
//! In: values that policy made for classes. Out: the same values, while they are cached. The
//! cache has the value for clients that select nothing, and those of a few other classes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::model::Class;

/// The values of some classes.
pub(super) struct ClassCache<T> {
    whole: OnceLock<Arc<T>>,
    selected: Mutex<Selected<T>>,
}

/// The values of a few classes. A new class replaces the oldest.
struct Selected<T> {
    oldest: usize,
    all: Vec<(Class, Arc<T>)>,
}

/// The most classes whose values are kept: more than people name in DNS, and at most
/// some hundred kilobytes.
const CLASSES_MAX: usize = 16;

impl<T> ClassCache<T> {
    pub(super) fn get(&self, class: &Class) -> Option<Arc<T>> {
        if *class == Class::default() {
            return self.whole.get().cloned();
        }
        let kept = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all.iter().find(|(of, _)| of == class).map(|(_, value)| value.clone())
    }

    pub(super) fn put(&self, class: &Class, value: &Arc<T>) {
        if *class == Class::default() {
            let _ = self.whole.set(value.clone());
            return;
        }
        let mut kept = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        let Selected { oldest, all } = &mut *kept;
        let new = (class.clone(), value.clone());
        if all.len() < CLASSES_MAX {
            all.push(new);
        } else {
            all[*oldest] = new;
            *oldest = (*oldest + 1) % CLASSES_MAX;
        }
    }
}

impl<T> Default for ClassCache<T> {
    fn default() -> Self {
        let selected = Mutex::new(Selected { oldest: 0, all: Vec::new() });
        Self { whole: OnceLock::new(), selected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Selector;

    #[test]
    fn values_are_kept_for_a_few_classes() {
        let kept = ClassCache::default();
        let class = |n: u8| Class::new(&[Selector { key: "zone".into(), value: n.to_string() }]);
        for n in 0..100 {
            kept.put(&class(n), &Arc::new(n));
            assert_eq!(kept.get(&class(n)).as_deref(), Some(&n));
        }
        let are = (0..100).filter(|&n| kept.get(&class(n)).is_some());
        assert_eq!(are.collect::<Vec<_>>(), (84..100).collect::<Vec<_>>());
        assert_eq!(kept.get(&Class::default()), None);
    }
}
