//! `[endpoints.NAME.scaling]`: how many instances, and when.

use std::time::Duration;

use darkroom_core::endpoint::{OnExit, Scaling};

use crate::config::reader::Section;

/// The embedded engine starts in milliseconds, so there is nothing to keep warm.
const EMBEDDED_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// `most`: how many instances the endpoint has room for (its gpus or URLs), where that is bounded. `on_exit`: what holds
/// unless it is configured.
pub(super) fn read(
    mut section: Section<'_>,
    embedded: bool,
    most: Option<usize>,
    on_exit: OnExit,
) -> Scaling {
    let default = Scaling::default();
    let most = most.and_then(|n| u32::try_from(n).ok());
    let min_instances = section
        .small_number("min_instances", 0)
        .unwrap_or(default.min_instances);
    let max_given = section.has("max_instances");
    let max_instances = section
        .small_number("max_instances", 0)
        .unwrap_or_else(|| most.unwrap_or(default.max_instances).max(min_instances));
    if let Some(most) = most
        && max_instances > most
    {
        let key = if max_given {
            "max_instances"
        } else {
            "min_instances"
        };
        section.problem(
            key,
            format!("{max_instances} is more than the {most} that gpus or urls allow"),
        );
    } else if min_instances > max_instances {
        section.problem(
            "min_instances",
            format!("{min_instances} is more than max_instances, {max_instances}"),
        );
    }
    let scaling = Scaling {
        min_instances,
        max_instances,
        idle_timeout: section.duration("idle_timeout").unwrap_or(if embedded {
            EMBEDDED_IDLE_TIMEOUT
        } else {
            default.idle_timeout
        }),
        start_timeout: section
            .positive_duration("start_timeout")
            .unwrap_or(default.start_timeout),
        max_jobs_per_instance: section
            .small_number("max_jobs_per_instance", 0)
            .unwrap_or(default.max_jobs_per_instance),
        max_rss_bytes: section.size("max_rss").unwrap_or(default.max_rss_bytes),
        on_exit: section
            .choice("on_exit", &[("stop", OnExit::Stop), ("keep", OnExit::Keep)])
            .unwrap_or(on_exit),
    };
    section.finish();
    scaling
}
