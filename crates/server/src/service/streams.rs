//! Streams of events that callers have open, counted so that one caller cannot take all connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use darkroom_core::TenantId;

/// Who has streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A tenant, by one of its keys.
    Key(TenantId, String),
    /// Somebody without a key, from where they call.
    Anybody(TenantId, Option<IpAddr>),
}

/// All open streams of this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Streams {
    most: u64,
    open: Arc<Mutex<HashMap<Who, u64>>>,
}

/// One open stream, until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Streams,
    who: Who,
}

impl Streams {
    /// With so many for each caller.
    pub fn new(most: u64) -> Self {
        Streams {
            most,
            open: Arc::default(),
        }
    }

    /// One more for this caller; `None` when it has as many as it may.
    pub fn open(&self, who: Who) -> Option<OpenStream> {
        let mut open = self.lock();
        let count = open.entry(who.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(OpenStream {
            streams: self.clone(),
            who,
        })
    }

    /// How many each caller may have.
    pub fn most(&self) -> u64 {
        self.most
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Who, u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Some(count) = open.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_so_many_and_a_closed_one_makes_room() {
        let streams = Streams::new(2);
        let who = |key: &str| Who::Key("t".parse().unwrap(), key.to_owned());
        let first = streams.open(who("a")).unwrap();
        let _second = streams.open(who("a")).unwrap();
        assert!(streams.open(who("a")).is_none());
        let other = streams.open(who("b")).unwrap();
        drop(first);
        assert!(streams.open(who("a")).is_some(), "and that one closed again");
        drop(other);
        let from = |address: &str| Who::Anybody("t".parse().unwrap(), Some(address.parse().unwrap()));
        let theirs = [(); 2].map(|()| streams.open(from("10.0.0.1")).unwrap());
        assert!(streams.open(from("10.0.0.1")).is_none());
        assert!(
            streams.open(from("10.0.0.2")).is_some(),
            "one without a key takes nothing from others"
        );
        drop(theirs);
        assert_eq!(streams.lock().len(), 1, "who has none open is forgotten");
    }
}
