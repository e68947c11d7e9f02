//! `[endpoints.NAME.limits]`: bounds on jobs.

use darkroom_core::endpoint::Limits;

use crate::config::reader::Section;

pub(super) fn read(mut section: Section<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        execution_timeout: section
            .positive_duration("execution_timeout")
            .unwrap_or(default.execution_timeout),
        stall_timeout: section
            .positive_duration("stall_timeout")
            .unwrap_or(default.stall_timeout),
        queue_ttl: section.duration_or_none("queue_ttl").unwrap_or(default.queue_ttl),
        max_queued: section
            .number("max_queued", 1, u64::MAX)
            .unwrap_or(default.max_queued),
        max_running_per_tenant: section
            .small_number("max_running_per_tenant", 0)
            .unwrap_or(default.max_running_per_tenant),
        max_attempts: section
            .small_number("max_attempts", 1)
            .unwrap_or(default.max_attempts),
        cancel_grace: section.duration("cancel_grace").unwrap_or(default.cancel_grace),
        retention: section
            .positive_duration("retention")
            .unwrap_or(default.retention),
        max_output_bytes: section.size("max_output").unwrap_or(default.max_output_bytes),
        vendor_limits: section.flag("vendor_limits").unwrap_or(default.vendor_limits),
    };
    section.finish();
    limits
}
