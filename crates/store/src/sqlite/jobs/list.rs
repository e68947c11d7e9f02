//! Pages of jobs.

use darkroom_core::{EndpointName, JobId, JobState, TenantId};
use rusqlite::{Connection, params, types::Value};

use super::{
    super::sql,
    read::{self, RECORD, record},
};
use crate::{
    Error,
    jobs::{JobFilter, JobRecord, Page},
};

pub(super) fn jobs(conn: &Connection, filter: &JobFilter, page: &Page) -> Result<Vec<JobRecord>, Error> {
    let (sql, params) = query(filter, page);
    sql::rows(conn, &sql, rusqlite::params_from_iter(params), record)
}

pub(super) fn waiting(
    conn: &Connection,
    tenant: &TenantId,
    endpoint: &EndpointName,
    limit: u32,
) -> Result<Vec<JobId>, Error> {
    sql::rows(
        conn,
        "SELECT id FROM jobs INDEXED BY jobs_queued WHERE endpoint = ?1 AND tenant = ?2 AND state = 'queued' \
         ORDER BY priority DESC, ord LIMIT ?3",
        params![endpoint.as_str(), tenant.as_str(), limit],
        |row| Ok(JobId::from_uuid(sql::uuid(row, "id", "jobs")?)),
    )
}

pub(super) fn records(conn: &Connection, jobs: &[JobId]) -> Result<Vec<JobRecord>, Error> {
    let found = jobs.iter().map(|job| read::job(conn, None, *job));
    found.filter_map(Result::transpose).collect()
}

fn query(filter: &JobFilter, page: &Page) -> (String, Vec<Value>) {
    let mut wheres = Vec::new();
    let mut params: Vec<Value> = Vec::new();
    let mut add = |condition: &str, value: Value| {
        params.push(value);
        wheres.push(condition.replace('?', &format!("?{}", params.len())));
    };
    if let Some(tenant) = &filter.tenant {
        add("j.tenant = ?", Value::Text(tenant.to_string()));
    }
    if let Some(endpoint) = &filter.endpoint {
        // The plus keeps the planner from sorting an endpoint's jobs: lists go along the order of ids.
        add("+j.endpoint = ?", Value::Text(endpoint.to_string()));
    }
    if let Some(endpoints) = &filter.endpoints {
        // One parameter however many there are.
        let names = serde_json::to_string(endpoints).expect("a list of texts is JSON");
        add(
            "+j.endpoint IN (SELECT value FROM json_each(?))",
            Value::Text(names),
        );
    }
    if let Some(dialect) = &filter.dialect {
        add("j.dialect = ?", Value::Text(dialect.clone()));
    }
    if let Some(prefix) = &filter.external_id_prefix {
        add("substr(j.ext_id, 1, length(?)) = ?", Value::Text(prefix.clone()));
    }
    if let Some(from) = filter.created_from {
        add("j.created_at >= ?", Value::Integer(from.as_micros()));
    }
    if let Some(before) = filter.created_before {
        add("j.created_at < ?", Value::Integer(before.as_micros()));
    }
    // A job that never began has no time to compare.
    if let Some(from) = filter.started_from {
        add("j.started_at >= ?", Value::Integer(from.as_micros()));
    }
    if let Some(before) = filter.started_before {
        add("j.started_at < ?", Value::Integer(before.as_micros()));
    }
    if let Some(attempted) = filter.attempted {
        add("(j.attempts > 0) = ?", Value::Integer(attempted.into()));
    }
    if let Some((key, text)) = &filter.option {
        // The key is one of our own words.
        let condition = format!("json_extract(j.meta, '$.options.{key}') = ?");
        add(&condition, Value::Text(text.clone()));
    }
    for (n, (key, value)) in filter.labels.iter().enumerate() {
        let tenant = filter
            .tenant
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let mut place = |value: String| {
            params.push(Value::Text(value));
            params.len()
        };
        let (tenant, key, value) = (place(tenant), place(key.clone()), place(value.clone()));
        let is = |table: &str| {
            format!("{table}.tenant = ?{tenant} AND {table}.key = ?{key} AND {table}.value = ?{value}")
        };
        match n {
            // The first one leads, along its index in the order of ids.
            0 => wheres.push(is("l")),
            _ => wheres.push(format!(
                "EXISTS (SELECT 1 FROM labels m WHERE {} AND m.id = l.id)",
                is("m")
            )),
        }
    }
    let by_label = !filter.labels.is_empty();
    let id = if by_label { "l.id" } else { "j.id" };
    if let Some(after) = page.after {
        let than = if filter.oldest_first { '>' } else { '<' };
        params.push(Value::Blob(after.as_uuid().as_bytes().to_vec()));
        wheres.push(format!("{id} {than} ?{}", params.len()));
    }
    if !filter.states.is_empty() {
        // Literal words of our own, so that the partial index of open jobs can serve.
        let words: Vec<String> = filter
            .states
            .iter()
            .map(|s| format!("'{}'", s.as_str()))
            .collect();
        wheres.push(format!("j.state IN ({})", words.join(", ")));
    }
    let open_only = !filter.states.is_empty() && filter.states.iter().all(|s| !s.is_final());
    let from = if by_label {
        // Cross: a join in exactly this order.
        RECORD.replace("FROM jobs j", "FROM labels l CROSS JOIN jobs j ON j.nr = l.job")
    } else if open_only {
        // Few are open among many finished ones.
        wheres.push(format!(
            "j.state IN ('{}', '{}')",
            JobState::Queued.as_str(),
            JobState::Running.as_str()
        ));
        RECORD.replace("FROM jobs j", "FROM jobs j INDEXED BY jobs_open")
    } else {
        RECORD.to_owned()
    };
    let conditions = if wheres.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", wheres.join(" AND "))
    };
    let order = if filter.oldest_first { "ASC" } else { "DESC" };
    let limit = page.limit.clamp(1, 1000);
    (
        format!("{from}{conditions} ORDER BY {id} {order} LIMIT {limit}"),
        params,
    )
}
