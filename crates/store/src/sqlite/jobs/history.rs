//! A tenant's history of an endpoint: pages of it, its length, and taking jobs out of it.

use darkroom_core::{EndpointName, JobId, JobState, TenantId, Timestamp};
use rusqlite::{Connection, params, types::Value};

use super::{
    super::{sql, tx::Tx},
    end::SWEEP_ROWS,
    read::{RECORD, record},
};
use crate::{
    Error,
    jobs::{HistoryFilter, HistoryOrder, HistoryPage, JobRecord, NamedJob, Swept},
};

/// Rows of a page at most: what ComfyUI itself keeps (`comfyui/behaviour.md` §9).
const MOST: u32 = 10_000;

pub(super) fn page(
    conn: &Connection,
    filter: &HistoryFilter,
    page: HistoryPage,
) -> Result<Vec<JobRecord>, Error> {
    let (found, by, params) = found(filter, page, "j.nr");
    // The rows of the page are found along the index alone; only they are read with what belongs to them.
    let query = format!("{RECORD} WHERE j.nr IN ({found}) ORDER BY {by}");
    sql::rows(conn, &query, rusqlite::params_from_iter(params), record)
}

pub(super) fn names(
    conn: &Connection,
    filter: &HistoryFilter,
    page: HistoryPage,
) -> Result<Vec<NamedJob>, Error> {
    let (found, _, params) = found(filter, page, "j.id, j.ext_dialect, j.ext_id");
    sql::rows(conn, &found, rusqlite::params_from_iter(params), |row| {
        let external: (Option<String>, Option<String>) = (row.get("ext_dialect")?, row.get("ext_id")?);
        Ok(NamedJob {
            id: JobId::from_uuid(sql::uuid(row, "id", "jobs")?),
            external_id: external.0.zip(external.1),
        })
    })
}

/// A query for these columns of a page, its order, and its parameters.
fn found(filter: &HistoryFilter, page: HistoryPage, columns: &str) -> (String, String, Vec<Value>) {
    let (conditions, params) = conditions(filter);
    let (index, by) = match page.order {
        HistoryOrder::Ended => ("INDEXED BY jobs_history", "j.history DIR, j.nr DIR"),
        HistoryOrder::Accepted => ("INDEXED BY jobs_shown", "j.id DIR"),
        HistoryOrder::Duration => (
            "INDEXED BY jobs_shown",
            "COALESCE(j.finished_at - j.started_at, 0) DIR, j.id DIR",
        ),
    };
    let direction = if page.descending { "DESC" } else { "ASC" };
    let by = by.replace("DIR", direction);
    let (limit, offset) = (page.limit.min(MOST), page.offset.min(i64::MAX as u64));
    let found = format!(
        "SELECT {columns} FROM jobs j {index} WHERE {conditions} ORDER BY {by} LIMIT {limit} OFFSET {offset}"
    );
    (found, by, params)
}

pub(super) fn length(conn: &Connection, filter: &HistoryFilter) -> Result<u64, Error> {
    let (conditions, params) = conditions(filter);
    let query = match filter.workflow_id {
        Some(_) => format!("SELECT COUNT(*) FROM jobs j INDEXED BY jobs_shown WHERE {conditions}"),
        None => {
            let conditions = conditions.replace(HELD, "1");
            format!("SELECT COALESCE(SUM(j.n), 0) FROM history_lengths j WHERE {conditions}")
        }
    };
    let length: i64 = sql::value(conn, &query, rusqlite::params_from_iter(params))?.unwrap_or(0);
    Ok(u64::try_from(length).unwrap_or(0))
}

/// The condition of the partial indexes.
const HELD: &str = "j.history IS NOT NULL";

fn conditions(filter: &HistoryFilter) -> (String, Vec<Value>) {
    let mut params = vec![
        Value::Text(filter.tenant.to_string()),
        Value::Text(filter.endpoint.to_string()),
    ];
    let mut conditions = format!("j.tenant = ?1 AND j.endpoint = ?2 AND {HELD}");
    if !filter.states.is_empty() {
        let words: Vec<String> = filter
            .states
            .iter()
            .map(|state| format!("'{}'", state.as_str()))
            .collect();
        conditions = format!("{conditions} AND j.state IN ({})", words.join(", "));
    }
    if let Some(workflow) = &filter.workflow_id {
        params.push(Value::Text(workflow.clone()));
        conditions = format!("{conditions} AND json_extract(j.meta, '$.options.workflow_id') = ?3");
    }
    (conditions, params)
}

pub(super) fn forget(
    tx: &Tx<'_>,
    tenant: &TenantId,
    endpoint: &EndpointName,
    jobs: &[JobId],
) -> Result<u64, Error> {
    let mut forgotten = 0;
    for job in jobs {
        forgotten += sql::execute(
            tx.conn,
            "UPDATE jobs SET history = NULL WHERE id = ?1 AND tenant = ?2 AND endpoint = ?3 AND history IS NOT NULL",
            params![
                job.as_uuid().as_bytes().as_slice(),
                tenant.as_str(),
                endpoint.as_str()
            ],
        )?;
    }
    Ok(forgotten as u64)
}

pub(super) fn forget_all(
    tx: &Tx<'_>,
    tenant: &TenantId,
    endpoint: &EndpointName,
    ended_until: Timestamp,
) -> Result<Swept, Error> {
    let rows = sql::execute(
        tx.conn,
        "UPDATE jobs SET history = NULL WHERE nr IN (SELECT j.nr FROM jobs j INDEXED BY jobs_history \
         WHERE j.tenant = ?1 AND j.endpoint = ?2 AND j.history IS NOT NULL AND j.history <= ?3 LIMIT ?4)",
        params![
            tenant.as_str(),
            endpoint.as_str(),
            ended_until.as_micros(),
            sql::int(SWEEP_ROWS)
        ],
    )? as u64;
    Ok(Swept {
        rows,
        more: rows == SWEEP_ROWS,
    })
}

pub(super) fn is_remembered(conn: &Connection, job: JobId) -> Result<bool, Error> {
    let remembered: Option<bool> = sql::value(
        conn,
        "SELECT history IS NOT NULL FROM jobs WHERE id = ?1",
        [job.as_uuid().as_bytes().as_slice()],
    )?;
    Ok(remembered.unwrap_or(false))
}

/// Whether a job that enters this state stands in history from now on: one that was cancelled while it waited leaves no
/// trace there, as in ComfyUI (`comfyui/behaviour.md` §2).
pub(super) fn belongs(state: JobState, has_begun: bool) -> bool {
    match state {
        JobState::Queued | JobState::Running => false,
        JobState::Cancelled => has_begun,
        JobState::Succeeded | JobState::Failed | JobState::Expired => true,
    }
}
