//! Handing the best waiting job to a slot. What is read does not grow with the queue: the few lanes whose turn may be
//! now, and the first jobs of each.

use std::{collections::BTreeMap, sync::Arc};

use darkroom_core::{
    AttemptState, Fence, InstanceId, InstanceState, JobId, TenantId,
    job::Event,
    scheduler::{
        Candidate, Choice, Fairness, Needs, Offers, Share, SlotView, VirtualTime, fairness::JOB_COST, pick,
        pick::CANDIDATES_PER_LANE,
    },
};
use rusqlite::params;
use serde_json::{Map, Value};

use super::{
    super::{sql, tx::Tx},
    life::{Head, micros},
    line, read,
};
use crate::{
    Error,
    jobs::{Claim, Claimed},
};

/// Lanes looked at in one claim: those that have had the least service, the longest waiting first. More tenants than
/// this take turns all the same, since whoever is served goes behind the others. Finding them reads one small row per
/// tenant that waits, however long its queue is.
const MAX_LANES: usize = 16;
/// The same where nothing of those can run on the box that asks: it looks past such tenants.
const MAX_LANES_OF_BOXES: usize = 256;
/// Jobs looked at in one claim. More than a few are looked at only to get past those that this box cannot run; at about a
/// microsecond each this keeps the writer for some ten milliseconds at worst.
const MAX_LOOKS: usize = 20_000;

/// Whose turn it is.
enum Turns {
    /// What each tenant had decides, and what it gets is booked.
    Of(Fairness),
    /// Only one tenant waits. What it gets beside nobody gives nobody a claim on anything, so nothing is booked: who comes
    /// later begins level with it.
    Nobodys,
}

struct Lane {
    priority: i32,
    tenant: TenantId,
    share: Share,
}

pub(super) fn claim(tx: &Tx<'_>, claim: &Claim) -> Result<Option<Claimed>, Error> {
    let Some(clock) = open_clock(tx, claim)? else {
        return Ok(None);
    };
    let mut boxes = Boxes::new(claim);
    if let Some(lane) = only_lane(tx, claim)? {
        return claim_among(tx, claim, &[lane], Turns::Nobodys, &mut boxes);
    }
    let (mut below, mut most) = (None, MAX_LANES);
    loop {
        let Some((lanes, fairness)) = lanes(tx, claim, clock, below, most)? else {
            return Ok(None);
        };
        if let Some(claimed) = claim_among(tx, claim, &lanes, Turns::Of(fairness), &mut boxes)? {
            return Ok(Some(claimed));
        }
        // Nothing of the highest priority is for this slot, unless of tenants further on.
        let top = lanes[0].priority;
        let of_top = lanes.iter().filter(|lane| lane.priority == top).count();
        if claim.offers.is_some() && most == MAX_LANES && of_top == MAX_LANES {
            most = MAX_LANES_OF_BOXES;
            continue;
        }
        most = MAX_LANES;
        let more = lanes.iter().any(|lane| lane.priority < top);
        if !more {
            return Ok(None);
        }
        below = Some(top);
    }
}

fn claim_among(
    tx: &Tx<'_>,
    claim: &Claim,
    lanes: &[Lane],
    turns: Turns,
    boxes: &mut Boxes,
) -> Result<Option<Claimed>, Error> {
    let (mut fairness, counts) = match turns {
        Turns::Of(fairness) => (fairness, true),
        Turns::Nobodys => (Fairness::default(), false),
    };
    let mut candidates = Vec::new();
    let top = lanes[0].priority;
    // Lanes come in the order of their turns. The turn is that of the first which has something for this box.
    let mut turn = None;
    for lane in lanes {
        let effective = fairness.effective(&lane.tenant);
        let may_be_now = lane.priority == top && turn.is_none_or(|turn| turn == effective);
        // A lane whose turn it cannot be is represented by one job, so that the reason is told truly.
        let limit = if may_be_now { CANDIDATES_PER_LANE } else { 1 };
        let before = candidates.len();
        read_candidates(tx, claim, lane, limit, boxes, &mut candidates)?;
        if may_be_now && candidates.len() > before {
            turn = Some(effective);
        }
    }
    if turn.is_none() {
        return Ok(None);
    }
    let slot = SlotView {
        instance: Some(claim.instance),
        loaded: claim.loaded_models.iter().cloned().collect(),
        offers: claim.offers.clone(),
    };
    let offered: Vec<Candidate> = candidates
        .iter()
        .map(|(_, candidate)| candidate.clone())
        .collect();
    let Some(choice) = pick(&offered, &slot, &fairness) else {
        return Ok(None);
    };
    let chosen = &offered[choice.index];
    if counts {
        let of_top = lanes.iter().filter(|lane| lane.priority == chosen.priority);
        fairness.claimed(of_top.map(|lane| &lane.tenant), &chosen.tenant, JOB_COST);
        save_fairness(tx, claim, &fairness, &chosen.tenant)?;
    }
    for &index in &choice.overtaken {
        sql::execute(
            tx.conn,
            "UPDATE jobs SET skipped = skipped + 1 WHERE nr = ?1",
            [candidates[index].0],
        )?;
    }
    tx.failpoint("claim");
    hand_over(tx, claim, chosen.job, &choice).map(Some)
}

/// What this claim knows of needs, each row of which is read once.
struct Boxes {
    offers: Option<Arc<Offers>>,
    known: BTreeMap<i64, (Arc<Needs>, bool)>,
    /// Jobs that may still be looked at.
    looks: usize,
}

impl Boxes {
    fn new(claim: &Claim) -> Boxes {
        Boxes {
            offers: claim.offers.clone(),
            known: BTreeMap::new(),
            looks: MAX_LOOKS,
        }
    }

    /// What a job needs, if it can run on the box that asks. Where none is asked nothing is read.
    fn fits(&mut self, tx: &Tx<'_>, needs: Option<i64>) -> Result<Option<Arc<Needs>>, Error> {
        let (Some(offers), Some(nr)) = (&self.offers, needs) else {
            return Ok(Some(Arc::default()));
        };
        if let Some((needs, fits)) = self.known.get(&nr) {
            return Ok(fits.then(|| needs.clone()));
        }
        let needs = Arc::new(read::needs(tx.conn, nr)?);
        let fits = offers.meets(&needs);
        self.known.insert(nr, (needs.clone(), fits));
        Ok(fits.then_some(needs))
    }
}

/// An instance that drains or stops claims nothing more; asked in the claim's own transaction, so that no job slips in
/// between the planner's decision and its end. Every instance of a server has a row, pull workers and agents too; who works on
/// the store without one (its own tests, a bench) is nobody's to stop.
fn may_claim(tx: &Tx<'_>, instance: InstanceId) -> Result<bool, Error> {
    let state: Option<String> = sql::value(
        tx.conn,
        "SELECT state FROM instances WHERE id = ?1",
        [instance.as_uuid().as_bytes().as_slice()],
    )?;
    Ok(state.is_none_or(|state| state == InstanceState::Ready.as_str()))
}

/// The clock of an endpoint's line; `None` where nothing may be claimed from it: it is held, or nobody ever waited there.
fn open_clock(tx: &Tx<'_>, claim: &Claim) -> Result<Option<VirtualTime>, Error> {
    if !may_claim(tx, claim.instance)? {
        return Ok(None);
    }
    let clock: Option<i64> = sql::value(
        tx.conn,
        "SELECT clock FROM queues WHERE endpoint = ?1 AND paused_since IS NULL",
        [claim.endpoint.as_str()],
    )?;
    Ok(clock.map(|clock| VirtualTime(u64::try_from(clock).unwrap_or(0))))
}

/// The lane of the only tenant and priority that wait, if that is how it is.
fn only_lane(tx: &Tx<'_>, claim: &Claim) -> Result<Option<Lane>, Error> {
    if claim.max_running_per_tenant > 0 {
        return Ok(None);
    }
    let mut lanes = sql::rows(
        tx.conn,
        "SELECT priority, tenant FROM lanes WHERE endpoint = ?1 LIMIT 2",
        [claim.endpoint.as_str()],
        |row| {
            Ok(Lane {
                priority: row.get(0)?,
                tenant: sql::parsed(row, 1, "lanes", |t| t.parse().ok())?,
                share: Share::default(),
            })
        },
    )?;
    Ok(if lanes.len() == 1 { lanes.pop() } else { None })
}

/// The lanes of the highest priority (`below` another one) that may be next (the first is one of them), and one lower lane as a witness, with
/// the endpoint's accounts.
fn lanes(
    tx: &Tx<'_>,
    claim: &Claim,
    clock: VirtualTime,
    below: Option<i32>,
    most: usize,
) -> Result<Option<(Vec<Lane>, Fairness)>, Error> {
    let endpoint = claim.endpoint.as_str();
    let held_back = held_back(tx, claim)?;
    let top: Option<i32> = sql::value(
        tx.conn,
        "SELECT priority FROM lanes WHERE endpoint = ?1 AND priority < ?3 \
         AND (?2 = '[]' OR tenant NOT IN (SELECT value FROM json_each(?2))) ORDER BY priority DESC LIMIT 1",
        params![endpoint, held_back, below.map_or(i64::MAX, i64::from)],
    )?;
    let Some(top) = top else {
        return Ok(None);
    };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Lane {
            priority: row.get(0)?,
            tenant: sql::parsed(row, 1, "lanes", |t| t.parse().ok())?,
            share: Share {
                vtime: VirtualTime(sql::unsigned(row, 2)?),
                weight: sql::unsigned(row, 3)?,
            },
        })
    };
    let mut lanes = sql::rows(
        tx.conn,
        "SELECT l.priority, l.tenant, COALESCE(s.vtime, 0) AS vtime, COALESCE(s.weight, 1) AS weight \
         FROM lanes l LEFT JOIN shares s ON s.endpoint = l.endpoint AND s.tenant = l.tenant \
         WHERE l.endpoint = ?1 AND l.priority = ?2 AND (?5 = '[]' OR l.tenant NOT IN (SELECT value FROM json_each(?5))) \
         ORDER BY MAX(COALESCE(s.vtime, 0), ?3), l.since LIMIT ?4",
        params![endpoint, top, sql::int(clock.0), sql::int(most as u64), held_back],
        read,
    )?;
    lanes.extend(sql::row(
        tx.conn,
        "SELECT l.priority, l.tenant, COALESCE(s.vtime, 0) AS vtime, COALESCE(s.weight, 1) AS weight \
         FROM lanes l LEFT JOIN shares s ON s.endpoint = l.endpoint AND s.tenant = l.tenant \
         WHERE l.endpoint = ?1 AND l.priority < ?2 AND (?3 = '[]' OR l.tenant NOT IN (SELECT value FROM json_each(?3))) \
         ORDER BY l.priority DESC LIMIT 1",
        params![endpoint, top, held_back],
        read,
    )?);
    let tenants: BTreeMap<_, _> = lanes
        .iter()
        .map(|lane| (lane.tenant.clone(), lane.share))
        .collect();
    let fairness = Fairness { clock, tenants };
    Ok(Some((lanes, fairness)))
}

/// Tenants that run as much as they may: a JSON list, mostly empty (statements ask for that first, since taking a list apart
/// costs more than all else they do).
fn held_back(tx: &Tx<'_>, claim: &Claim) -> Result<String, Error> {
    if claim.max_running_per_tenant == 0 {
        return Ok("[]".to_owned());
    }
    let full = line::at_quota(tx.conn, &claim.endpoint, claim.max_running_per_tenant)?;
    Ok(sql::to_json(&full.into_keys().collect::<Vec<_>>()))
}

fn read_candidates(
    tx: &Tx<'_>,
    claim: &Claim,
    lane: &Lane,
    limit: usize,
    boxes: &mut Boxes,
    candidates: &mut Vec<(i64, Candidate)>,
) -> Result<(), Error> {
    let instance = claim.instance.as_uuid().as_bytes();
    let looks = if claim.offers.is_some() {
        boxes.looks
    } else {
        limit + claim.except.len()
    };
    let mut statement = tx.conn.prepare_cached(
        "SELECT nr, id, ord, skipped, models, avoid, needs FROM jobs \
         WHERE endpoint = ?1 AND tenant = ?2 AND priority = ?3 AND state = 'queued' ORDER BY ord LIMIT ?4",
    )?;
    let mut rows = statement.query(params![
        claim.endpoint.as_str(),
        lane.tenant.as_str(),
        lane.priority,
        sql::int(looks as u64)
    ])?;
    // For a slot without preferences the oldest is as good as any; that there is a second one is part of the reason.
    let mut enough = limit;
    let mut found = 0;
    while found < enough
        && let Some(row) = rows.next()?
    {
        boxes.looks = boxes.looks.saturating_sub(1);
        let job = JobId::from_uuid(sql::uuid(row, 1, "jobs")?);
        if claim.except.contains(&job) {
            continue;
        }
        let Some(needs) = boxes.fits(tx, row.get(6)?)? else {
            continue;
        };
        let models = match row.get_ref(4)? {
            rusqlite::types::ValueRef::Null => Vec::new(),
            _ => sql::json(row, 4, "jobs")?,
        };
        let candidate = Candidate {
            job,
            tenant: lane.tenant.clone(),
            priority: lane.priority,
            order: row.get(2)?,
            skipped: sql::unsigned(row, 3)?,
            models,
            needs,
            avoid: row.get::<_, Option<Vec<u8>>>(5)?.as_deref() == Some(instance.as_slice()),
        };
        if found == 0 && !candidate.avoid && claim.loaded_models.is_empty() {
            enough = limit.min(2);
        }
        candidates.push((row.get(0)?, candidate));
        found += 1;
    }
    Ok(())
}

fn save_fairness(tx: &Tx<'_>, claim: &Claim, fairness: &Fairness, chosen: &TenantId) -> Result<(), Error> {
    sql::execute(
        tx.conn,
        "UPDATE queues SET clock = ?2 WHERE endpoint = ?1",
        params![claim.endpoint.as_str(), sql::int(fairness.clock.0)],
    )?;
    let share = fairness.tenants.get(chosen).copied().unwrap_or_default();
    sql::execute(
        tx.conn,
        "INSERT INTO shares (endpoint, tenant, vtime, weight) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO UPDATE SET vtime = excluded.vtime",
        params![
            claim.endpoint.as_str(),
            chosen.as_str(),
            sql::int(share.vtime.0),
            share.weight
        ],
    )?;
    Ok(())
}

fn hand_over(tx: &Tx<'_>, claim: &Claim, job: JobId, choice: &Choice) -> Result<Claimed, Error> {
    let missing = |what: &str| Error::Inconsistent {
        table: "jobs",
        what: format!("{job}: {what}"),
    };
    let fence: i64 = sql::value(
        tx.conn,
        "UPDATE counters SET value = value + 1 WHERE name = 'fence' RETURNING value",
        [],
    )?
    .ok_or_else(|| missing("no fence counter"))?;
    let mut head = Head::load(tx, None, job)?.ok_or_else(|| missing("a candidate is gone"))?;
    head.attempts += 1;
    (head.events_from, head.event_bytes, head.truncated) = (head.last_event, 0, false);
    head.fence = Some(Fence(fence));
    let reason = choice.reason.to_string();
    sql::execute(
        tx.conn,
        "INSERT INTO attempts (fence, job, number, state, endpoint, instance, owner, claimed_at, lease_until, reason) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            fence,
            head.nr,
            head.attempts,
            AttemptState::Claimed.as_str(),
            claim.endpoint.as_str(),
            claim.instance.as_uuid().as_bytes().as_slice(),
            claim.owner.as_str(),
            tx.now.as_micros(),
            tx.now.as_micros().saturating_add(micros(claim.lease)),
            reason
        ],
    )?;
    head.apply(tx, Event::Claimed, on(claim.instance))?;
    let record = read::job(tx.conn, None, job)?.ok_or_else(|| missing("has no body"))?;
    Ok(Claimed {
        job: record,
        attempt: head.attempts,
        fence: Fence(fence),
        reason,
    })
}

fn on(instance: InstanceId) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("instance".to_owned(), instance.to_string().into());
    facts
}
