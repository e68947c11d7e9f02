//! The query of `/api/jobs`: which jobs, in which order, which piece.

use darkroom_core::{EndpointName, JobId, JobState, TenantId};
use serde::Deserialize;

use crate::service::{
    history::{HistoryFilter, HistoryOrder},
    jobs::JobRecord,
};

/// Jobs of one answer at most, and when no number is asked for.
const MOST: u32 = 1000;

/// As it comes; texts, because the refusal of a wrong one has this list's shape.
#[derive(Debug, Default, Deserialize)]
pub struct Query {
    status: Option<String>,
    workflow_id: Option<String>,
    sort_by: Option<String>,
    sort_order: Option<String>,
    limit: Option<String>,
    offset: Option<String>,
}

/// As it is meant.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// Of the states that are not final.
    pub open: Vec<JobState>,
    /// Of the final ones.
    ended: Vec<JobState>,
    /// Only of this workflow.
    pub workflow_id: Option<String>,
    /// By what.
    pub order: HistoryOrder,
    /// Newest or longest first.
    pub descending: bool,
    /// Left out.
    pub offset: u64,
    /// At most.
    pub limit: u32,
}

impl Wanted {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, for the caller.
    pub fn read(query: &Query) -> Result<Self, String> {
        let words = query.status.as_deref().filter(|words| !words.trim().is_empty());
        let words: Vec<&str> = words.unwrap_or(ALL).split(',').map(str::trim).collect();
        let (mut open, mut ended) = (Vec::new(), Vec::new());
        for (nth, word) in words.iter().enumerate() {
            // Said twice, it means no more than once.
            if words[..nth].contains(word) {
                continue;
            }
            match *word {
                "pending" => open.push(JobState::Queued),
                "in_progress" => open.push(JobState::Running),
                "completed" => ended.push(JobState::Succeeded),
                "failed" => ended.extend([JobState::Failed, JobState::Expired]),
                "cancelled" => ended.push(JobState::Cancelled),
                _ => return Err(format!("Invalid status value; valid values: {ALL}")),
            }
        }
        let order = match query.sort_by.as_deref() {
            None | Some("created_at") => HistoryOrder::Accepted,
            Some("execution_duration") => HistoryOrder::Duration,
            Some(_) => return Err("sort_by must be 'created_at' or 'execution_duration'".to_owned()),
        };
        let descending = match query.sort_order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err("sort_order must be 'asc' or 'desc'".to_owned()),
        };
        let limit = match whole("limit", query.limit.as_deref())? {
            None => MOST,
            Some(limit @ 1..) => u32::try_from(limit).unwrap_or(MOST).min(MOST),
            Some(_) => return Err("limit must be a positive integer".to_owned()),
        };
        let offset = whole("offset", query.offset.as_deref())?.unwrap_or(0);
        Ok(Wanted {
            open,
            ended,
            workflow_id: query.workflow_id.clone().filter(|id| !id.is_empty()),
            order,
            descending,
            offset: u64::try_from(offset).unwrap_or(0),
            limit,
        })
    }

    /// What is wanted of history; `None`: nothing.
    pub fn history(&self, tenant: &TenantId, endpoint: &EndpointName) -> Option<HistoryFilter> {
        if self.ended.is_empty() {
            return None;
        }
        Some(HistoryFilter {
            tenant: tenant.clone(),
            endpoint: endpoint.clone(),
            // All of them is no filter.
            states: match self.ended.len() {
                4 => vec![],
                _ => self.ended.clone(),
            },
            workflow_id: self.workflow_id.clone(),
        })
    }

    /// Where a job stands in the order; ids are ordered by time.
    pub fn key(&self, job: &JobRecord) -> (i64, u128) {
        let sign = if self.descending { -1 } else { 1 };
        let took = match (self.order, job.started_at, job.finished_at) {
            (HistoryOrder::Duration, Some(began), Some(ended)) => ended.as_micros() - began.as_micros(),
            _ => 0,
        };
        let id = JobId::as_uuid(&job.id).as_u128();
        (sign * took, if self.descending { u128::MAX - id } else { id })
    }
}

const ALL: &str = "pending,in_progress,completed,failed,cancelled";

fn whole(name: &str, text: Option<&str>) -> Result<Option<i64>, String> {
    let parse = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| format!("{name} must be an integer"))
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_the_web_page_are_read_and_nonsense_is_refused() {
        let status = |words: &str| Query {
            status: Some(words.to_owned()),
            ..Query::default()
        };
        let wanted = Wanted::read(&status("pending, in_progress")).unwrap();
        assert_eq!(wanted.open, [JobState::Queued, JobState::Running]);
        assert_eq!((wanted.limit, wanted.offset, wanted.descending), (MOST, 0, true));
        let all = Wanted::read(&Query::default()).unwrap();
        assert_eq!((all.open.len(), all.ended.len()), (2, 4));
        let failed = Wanted::read(&status("failed,failed")).unwrap();
        assert_eq!(failed.ended, [JobState::Failed, JobState::Expired]);
        for wrong in [
            status("done"),
            Query {
                limit: Some("0".into()),
                ..Query::default()
            },
            Query {
                limit: Some("x".into()),
                ..Query::default()
            },
            Query {
                offset: Some("1.5".into()),
                ..Query::default()
            },
            Query {
                sort_by: Some("name".into()),
                ..Query::default()
            },
            Query {
                sort_order: Some("up".into()),
                ..Query::default()
            },
        ] {
            assert!(Wanted::read(&wrong).is_err(), "{wrong:?}");
        }
        let negative = Query {
            offset: Some("-4".into()),
            ..Query::default()
        };
        assert_eq!(Wanted::read(&negative).unwrap().offset, 0);
    }
}
