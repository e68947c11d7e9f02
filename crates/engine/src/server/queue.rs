//! The prompts that wait, and the one that runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value as Json, json};

use crate::exec::Prompt;

/// One accepted prompt and its place.
#[derive(Debug)]
pub struct Item {
    /// The place as the client sees it: a whole number from the counter, or the fraction it asked for.
    pub number: Json,
    /// What to run.
    pub prompt: Prompt,
}

/// The smallest number runs first, equal numbers in order of arrival. (ComfyUI compares ids and then breaks.)
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    changed: Changed,
}

/// Told how many prompts wait or run, under the queue's lock: what is said about a change comes before what follows from it.
type Changed = Box<dyn Fn(usize) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<(Rank, u64), Arc<Item>>,
    running: Option<Arc<Item>>,
    arrivals: u64,
    forget: bool,
    closed: bool,
}

impl State {
    fn remaining(&self) -> usize {
        self.pending.len() + usize::from(self.running.is_some())
    }
}

/// What the worker is to do next.
pub enum Next {
    /// Run this; it is now the running one.
    Run(Arc<Item>),
    /// Drop all cached results.
    Forget,
    /// End.
    Close,
}

/// A finite number with a total order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rank(f64);

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Adding zero makes -0.0 equal to 0.0.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl Item {
    /// The five elements by which `/queue` and `/history` show a prompt.
    pub fn to_json(&self) -> Json {
        let prompt = &self.prompt;
        json!([
            self.number,
            prompt.id,
            prompt.graph,
            prompt.extra_data,
            prompt.outputs
        ])
    }
}

impl Queue {
    /// An empty queue that tells `changed` of every change.
    pub fn new(changed: impl Fn(usize) + Send + Sync + 'static) -> Queue {
        Queue {
            state: Mutex::default(),
            wake: Condvar::new(),
            changed: Box::new(changed),
        }
    }

    /// Adds a prompt.
    pub fn put(&self, item: Item) {
        let mut state = self.lock();
        state.arrivals += 1;
        let key = (Rank(item.number.as_f64().unwrap_or_default()), state.arrivals);
        state.pending.insert(key, Arc::new(item));
        (self.changed)(state.remaining());
        self.wake.notify_all();
    }

    /// Waits for something to do.
    pub fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Close;
            }
            if std::mem::take(&mut state.forget) {
                return Next::Forget;
            }
            if let Some((_, item)) = state.pending.pop_first() {
                state.running = Some(Arc::clone(&item));
                (self.changed)(state.remaining());
                return Next::Run(item);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The running prompt ended.
    pub fn done(&self) {
        let mut state = self.lock();
        state.running = None;
        (self.changed)(state.remaining());
    }

    /// How many wait or run.
    pub fn remaining(&self) -> usize {
        self.lock().remaining()
    }

    /// The running prompt and the waiting ones in the order they will run.
    pub fn list(&self) -> (Vec<Arc<Item>>, Vec<Arc<Item>>) {
        let state = self.lock();
        (
            state.running.iter().cloned().collect(),
            state.pending.values().cloned().collect(),
        )
    }

    /// True if the prompt of this id runs.
    pub fn is_running(&self, id: &str) -> bool {
        self.lock()
            .running
            .as_ref()
            .is_some_and(|item| item.prompt.id == id)
    }

    /// Removes all waiting prompts.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.pending.clear();
        (self.changed)(state.remaining());
    }

    /// Removes one waiting prompt of this id; true if there was one.
    pub fn remove(&self, id: &str) -> bool {
        let mut state = self.lock();
        let key = state
            .pending
            .iter()
            .find(|(_, item)| item.prompt.id == id)
            .map(|(key, _)| *key);
        let removed = key.is_some_and(|key| state.pending.remove(&key).is_some());
        if removed {
            (self.changed)(state.remaining());
        }
        removed
    }

    /// Cached results are to be dropped before the next prompt, at once when idle.
    pub fn forget(&self) {
        self.lock().forget = true;
        self.wake.notify_all();
    }

    /// Nothing is started any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_comfy::graph::Graph;
    use serde_json::Map;

    use super::*;

    fn item(number: Json, id: &str) -> Item {
        let prompt = Prompt {
            id: id.into(),
            graph: Graph::default(),
            extra_data: Map::new(),
            outputs: Vec::new(),
        };
        Item { number, prompt }
    }

    fn next_id(queue: &Queue) -> String {
        match queue.next() {
            Next::Run(item) => item.prompt.id.clone(),
            Next::Forget => "forget".into(),
            Next::Close => "close".into(),
        }
    }

    #[test]
    fn the_recorded_order_holds() {
        let queue = Queue::new(|_| {});
        for (number, id) in [
            (json!(1), "second"),
            (json!(2), "third"),
            (json!(-3), "front1"),
            (json!(-4), "front2"),
            (json!(-100.0), "-100"),
        ] {
            queue.put(item(number, id));
        }
        let order: Vec<String> = (0..5).map(|_| next_id(&queue)).collect();
        assert_eq!(order, ["-100", "front2", "front1", "second", "third"]);
    }

    #[test]
    fn equal_numbers_and_equal_ids_run_in_order_of_arrival() {
        let queue = Queue::new(|_| {});
        for id in ["b", "tie", "tie", "a"] {
            queue.put(item(json!(50.0), id));
        }
        assert!(queue.remove("tie"));
        let order: Vec<String> = (0..3).map(|_| next_id(&queue)).collect();
        assert_eq!(order, ["b", "tie", "a"]);
        assert!(!queue.remove("tie"), "it runs");
    }

    #[test]
    fn counts_include_the_running_one() {
        let queue = Queue::new(|_| {});
        queue.put(item(json!(0), "a"));
        queue.put(item(json!(0), "b"));
        assert_eq!(next_id(&queue), "a");
        assert_eq!(queue.remaining(), 2);
        queue.done();
        assert_eq!(queue.remaining(), 1);
        queue.forget();
        assert_eq!(next_id(&queue), "forget");
        queue.close();
        assert_eq!(next_id(&queue), "close");
    }
}
