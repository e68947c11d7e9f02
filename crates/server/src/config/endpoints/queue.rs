//! `[endpoints.NAME.queue]`: bounds on the items of its queues.

use darkroom_core::endpoint::{DeadLetter, QueueLimits};

use crate::config::reader::Section;

/// Larger items than this would be held in memory several times over (1 GB).
const LARGEST_PAYLOAD: u64 = 1_000_000_000;

pub(super) fn read(mut section: Section<'_>) -> QueueLimits {
    let default = QueueLimits::default();
    let max_payload_bytes = section.size("max_payload").unwrap_or(default.max_payload_bytes);
    if !(1..=LARGEST_PAYLOAD).contains(&max_payload_bytes) {
        section.problem("max_payload", "must be from 1 byte to 1GB");
    }
    let limits = QueueLimits {
        max_payload_bytes,
        max_length: section
            .number("max_length", 1, u64::MAX)
            .unwrap_or(default.max_length),
        max_delivery: section
            .small_number("max_delivery", 1)
            .unwrap_or(default.max_delivery),
        max_idle: section.duration_or_none("max_idle").unwrap_or(default.max_idle),
        leave_grace: section.duration("leave_grace").unwrap_or(default.leave_grace),
        group_idle: section
            .positive_duration("group_idle")
            .unwrap_or(default.group_idle),
        dead_letter: section
            .choice(
                "dead_letter",
                &[("rear", DeadLetter::Rear), ("drop", DeadLetter::Drop)],
            )
            .unwrap_or(default.dead_letter),
    };
    section.finish();
    limits
}
