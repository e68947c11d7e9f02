//! What an agent tells of its runs: events that are stored, once each however often they are told, and what is only shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_core::{attempt::Lease, event::NewEvent};
use darkroom_runner::{
    link::{AttemptLink, Ephemeral, LinkError},
    wire::{Ended, Happening, Told},
};
use darkroom_store::jobs;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::seat::{Failed, Seated};
use crate::beside::beside;

impl Seated {
    /// What went on.
    ///
    /// # Errors
    /// [`Failed`]; also for what an instance cannot tell of.
    pub async fn tell(&self, lease: Lease, told: Told) -> Result<(), Failed> {
        self.check(lease)?;
        let Told { teller, first, items } = told;
        let size = items.iter().map(size_of).sum();
        let shown = beside(size, move || {
            items.into_iter().map(shown).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let (mut first, mut batch) = (first, Vec::new());
        for item in shown {
            match item {
                Shown::Durable(event) => batch.push(event),
                Shown::Live(what) => {
                    first = self.append(lease, teller, first, &mut batch).await?;
                    self.seat.link.progress(lease, what);
                }
                Shown::Nothing => {}
            }
        }
        self.append(lease, teller, first, &mut batch).await?;
        Ok(())
    }

    /// Stores what was gathered; how many the agent has told with these.
    async fn append(
        &self,
        lease: Lease,
        teller: Uuid,
        first: u64,
        batch: &mut Vec<NewEvent>,
    ) -> Result<u64, Failed> {
        let events = std::mem::take(batch);
        let told = first.saturating_add(events.len() as u64);
        if !events.is_empty() {
            let told = jobs::Told {
                teller,
                first,
                events,
            };
            let done = self.seat.link.told(lease, told).await;
            self.answer(done)?;
        }
        Ok(told)
    }
}

/// Whether the end of an attempt says what an agent may say.
///
/// # Errors
/// [`LinkError::Rejected`].
pub(super) fn check_end(ended: &Ended) -> Result<(), LinkError> {
    ended.events.iter().try_for_each(check)?;
    match &ended.result {
        Some(json) if !is_json(json) => Err(LinkError::Rejected("the result is not JSON".to_owned())),
        _ => Ok(()),
    }
}

/// What others read as ours, or cannot read, is not taken from an agent.
fn check(event: &NewEvent) -> Result<(), LinkError> {
    if !event.kind.is_an_instances() {
        let why = format!("an instance tells of no '{}'", event.kind.as_str());
        return Err(LinkError::Rejected(why));
    }
    match is_json(&event.data) {
        true => Ok(()),
        false => Err(LinkError::Rejected("an event's data is not JSON".to_owned())),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn size_of(item: &Happening) -> usize {
    match item {
        Happening::Durable(event) => event.data.len(),
        Happening::Message(text) => text.len(),
        Happening::Preview { base64, .. } => base64.len(),
    }
}

enum Shown {
    Durable(NewEvent),
    Live(Ephemeral),
    Nothing,
}

/// What cannot be shown is not: a picture that is none is no reason to end a run.
fn shown(item: Happening) -> Result<Shown, LinkError> {
    Ok(match item {
        Happening::Durable(event) => {
            check(&event)?;
            Shown::Durable(event)
        }
        Happening::Message(text) if is_json(&text) => Shown::Live(Ephemeral::Message(text.into())),
        Happening::Message(_) => Shown::Nothing,
        Happening::Preview {
            node_id,
            content_type,
            base64,
        } => {
            let known = ["image/jpeg", "image/png"];
            let content_type = known.into_iter().find(|known| *known == content_type);
            match (content_type, STANDARD.decode(base64)) {
                (Some(content_type), Ok(bytes)) => Shown::Live(Ephemeral::Preview {
                    node_id,
                    content_type,
                    bytes: bytes.into(),
                }),
                _ => Shown::Nothing,
            }
        }
    })
}
