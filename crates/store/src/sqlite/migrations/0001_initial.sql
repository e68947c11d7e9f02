-- Instants are microseconds since the epoch, by the store's clock. Ids are the 16 bytes of the UUID.
-- Rows refer to a job by its short number `nr`, which never leaves the store.

-- Numbers that must never repeat.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('fence', 0);

-- One row per endpoint that ever had a job: what the planner reads, so that it never reads jobs.
CREATE TABLE queues (
    endpoint   TEXT PRIMARY KEY,
    queued     INTEGER NOT NULL DEFAULT 0,
    queued_low INTEGER NOT NULL DEFAULT 0,
    running    INTEGER NOT NULL DEFAULT 0,   -- held by an attempt that is not collecting
    collecting INTEGER NOT NULL DEFAULT 0,
    next_ord   INTEGER NOT NULL DEFAULT 0,   -- the last place given out in the line
    clock      INTEGER NOT NULL DEFAULT 0    -- core::scheduler::Fairness::clock
) WITHOUT ROWID;

-- One row per (endpoint, priority, tenant) with waiting jobs: where a claim looks for candidates.
CREATE TABLE lanes (
    endpoint TEXT NOT NULL,
    priority INTEGER NOT NULL,
    tenant   TEXT NOT NULL,
    queued   INTEGER NOT NULL,
    since    INTEGER NOT NULL,               -- the place of the job that opened the lane
    PRIMARY KEY (endpoint, priority, tenant)
) WITHOUT ROWID;

-- core::scheduler::Share, for tenants that have claimed.
CREATE TABLE shares (
    endpoint TEXT NOT NULL,
    tenant   TEXT NOT NULL,
    vtime    INTEGER NOT NULL,
    weight   INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (endpoint, tenant)
) WITHOUT ROWID;

CREATE TABLE jobs (
    nr               INTEGER PRIMARY KEY,
    id               BLOB NOT NULL UNIQUE,
    tenant           TEXT NOT NULL,
    endpoint         TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    state            TEXT NOT NULL,
    ord              INTEGER NOT NULL,       -- its place in the endpoint's line; kept when an attempt is lost
    skipped          INTEGER NOT NULL DEFAULT 0,
    avoid            BLOB,                   -- the instance on which an attempt was lost last
    models           TEXT,                   -- JSON array
    meta             TEXT NOT NULL,
    dialect          TEXT NOT NULL,
    webhook          TEXT,
    ext_dialect      TEXT,
    ext_id           TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    queue_ttl        INTEGER,                -- microseconds
    expires_at       INTEGER,                -- while it is queued
    max_attempts     INTEGER NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    lost             INTEGER NOT NULL DEFAULT 0,
    released         INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    fence            INTEGER,                -- of the attempt that holds it
    last_event       INTEGER NOT NULL DEFAULT 0,
    event_bytes      INTEGER NOT NULL DEFAULT 0,
    truncated        INTEGER NOT NULL DEFAULT 0,
    failure          TEXT
);
CREATE INDEX jobs_queued   ON jobs (endpoint, tenant, priority, ord) WHERE state = 'queued';
CREATE INDEX jobs_expiry   ON jobs (endpoint, expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX jobs_open     ON jobs (id) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_tenant   ON jobs (tenant, id);
CREATE INDEX jobs_finished ON jobs (endpoint, finished_at) WHERE finished_at IS NOT NULL;

-- Apart from `jobs`, so that a change of state never rewrites a body.
CREATE TABLE inputs (
    job    INTEGER PRIMARY KEY,
    inline BLOB,
    blob   TEXT,
    size   INTEGER NOT NULL
);
CREATE TABLE results (
    job     INTEGER PRIMARY KEY,
    inline  BLOB,
    blob    TEXT,
    size    INTEGER,
    outputs TEXT NOT NULL                    -- JSON array of core::output::Output
);

CREATE TABLE events (
    job     INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;

CREATE TABLE attempts (
    fence       INTEGER PRIMARY KEY,
    job         INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    state       TEXT NOT NULL,
    endpoint    TEXT NOT NULL,
    instance    BLOB NOT NULL,
    owner       TEXT NOT NULL,
    client_id   TEXT,
    prompt_id   TEXT,
    claimed_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    lease_until INTEGER NOT NULL,
    reason      TEXT NOT NULL
);
CREATE INDEX attempts_job  ON attempts (job, number);
CREATE INDEX attempts_open ON attempts (endpoint, lease_until) WHERE ended_at IS NULL;

CREATE TABLE external_ids (
    tenant   TEXT NOT NULL,
    dialect  TEXT NOT NULL,
    id       TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    job      INTEGER NOT NULL,
    PRIMARY KEY (tenant, dialect, id, endpoint)
) WITHOUT ROWID;
CREATE INDEX external_ids_job ON external_ids (job);

CREATE TABLE file_refs (
    owner        TEXT NOT NULL,
    name         TEXT NOT NULL,
    tenant       TEXT NOT NULL,
    blob         TEXT NOT NULL,
    size         INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (owner, name)
) WITHOUT ROWID;
CREATE INDEX file_refs_blob ON file_refs (blob);

-- Blobs that nothing refers to: dropped ones, and intended ones whose reference has not come yet.
CREATE TABLE trash (
    blob     TEXT PRIMARY KEY,
    since    INTEGER NOT NULL,
    intended INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX trash_since ON trash (intended, since);

CREATE TABLE outbox (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    job    BLOB NOT NULL,
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL,
    tries  INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL
);
CREATE INDEX outbox_due ON outbox (due_at);

CREATE TABLE keys (
    nr            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL,
    prefix        TEXT NOT NULL,
    scopes        TEXT NOT NULL,
    endpoints     TEXT NOT NULL,
    tenant        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER
);
CREATE UNIQUE INDEX keys_live ON keys (name) WHERE revoked_at IS NULL;

CREATE TABLE instances (
    id           BLOB PRIMARY KEY,
    endpoint     TEXT NOT NULL,
    home         TEXT NOT NULL,
    state        TEXT NOT NULL,
    state_since  INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    gone         INTEGER NOT NULL DEFAULT 0,
    gpu          TEXT,
    handle       TEXT,
    start_reason TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    jobs_done    INTEGER NOT NULL DEFAULT 0,
    phases       TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX instances_gone ON instances (gone, state_since);

CREATE TABLE object_info (
    endpoint TEXT PRIMARY KEY,
    json     BLOB NOT NULL,
    at       INTEGER NOT NULL
);

CREATE TABLE endpoints (
    name TEXT PRIMARY KEY,
    json TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE decisions (
    nr       INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    at       INTEGER NOT NULL,
    json     TEXT NOT NULL
);
CREATE INDEX decisions_endpoint ON decisions (endpoint, nr);
