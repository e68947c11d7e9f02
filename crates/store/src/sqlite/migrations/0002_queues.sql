-- Queues of the EAS queue service: items, consumer groups, deliveries. They are not the job queue: see `jobs` and `queues`.

CREATE TABLE item_queues (
    nr       INTEGER PRIMARY KEY,
    tenant   TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    side     TEXT NOT NULL,                  -- input, sink, and the rear of either
    next     INTEGER NOT NULL DEFAULT 1,     -- index of the next item; grows for ever
    length   INTEGER NOT NULL DEFAULT 0,     -- items that are there, not counting taken ones
    ended    INTEGER NOT NULL DEFAULT 0,     -- takes no more items
    UNIQUE (tenant, endpoint, side)
);

CREATE TABLE items (
    nr          INTEGER PRIMARY KEY,
    queue       INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    put_at      INTEGER NOT NULL,
    taken_until INTEGER,                     -- a reader is being sent it, and it goes once that was written
    taken_by    TEXT,                        -- the server that sends it
    job         INTEGER,                     -- the job that stands behind it; such an item is never delivered
    request_id  TEXT NOT NULL,
    tags        TEXT NOT NULL,               -- JSON object of texts
    size        INTEGER NOT NULL,
    blob        TEXT,
    inline      BLOB,
    UNIQUE (queue, idx)
);
CREATE INDEX items_line    ON items (queue, priority, idx);
CREATE INDEX items_request ON items (queue, request_id);
CREATE INDEX items_job     ON items (job) WHERE job IS NOT NULL;
CREATE INDEX items_taken   ON items (queue, taken_until) WHERE taken_until IS NOT NULL;

-- Names that clients gave to puts, so that a repeated put gets the first index again, also when the item is gone.
CREATE TABLE item_names (
    queue INTEGER NOT NULL,
    name  TEXT NOT NULL,
    idx   INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;
CREATE INDEX item_names_at ON item_names (at);

CREATE TABLE item_groups (
    queue   INTEGER NOT NULL,
    name    TEXT NOT NULL,
    seen_at INTEGER NOT NULL,                -- when a consumer of it last came or went
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;

CREATE TABLE consumers (
    queue       INTEGER NOT NULL,
    grp         TEXT NOT NULL,
    name        TEXT NOT NULL,
    session     INTEGER NOT NULL,            -- of the newest connection; an older one is told to go
    node        TEXT NOT NULL,               -- the server it is connected to
    left_at     INTEGER,                     -- null: connected
    start       INTEGER NOT NULL,            -- items before this index are not for it
    window      INTEGER NOT NULL,
    auto_commit INTEGER NOT NULL,
    tags        TEXT NOT NULL,
    last_index  INTEGER NOT NULL,
    active_at   INTEGER NOT NULL,
    PRIMARY KEY (queue, grp, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX consumers_session ON consumers (session);

CREATE TABLE deliveries (
    queue    INTEGER NOT NULL,
    grp      TEXT NOT NULL,
    idx      INTEGER NOT NULL,
    state    TEXT NOT NULL,                  -- pending, returned, committed
    consumer TEXT,                           -- who holds it; of a returned one: for whom it is kept, or null
    times    INTEGER NOT NULL,               -- how often it was delivered
    at       INTEGER NOT NULL,
    PRIMARY KEY (queue, grp, idx)
) WITHOUT ROWID;
CREATE INDEX deliveries_item ON deliveries (queue, idx);
CREATE INDEX deliveries_open ON deliveries (queue, grp, state, consumer) WHERE state <> 'committed';

INSERT INTO counters (name, value) VALUES ('session', 0);

-- Where the result of a job goes: JSON of `queues::Sink`; null: nowhere.
ALTER TABLE jobs ADD COLUMN sink TEXT;
