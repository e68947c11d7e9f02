-- What must leave the process waits in lanes, one per tenant and receiver, so that none waits behind another's.
ALTER TABLE outbox ADD COLUMN lane TEXT NOT NULL DEFAULT '';
CREATE INDEX outbox_lane ON outbox (kind, lane, due_at);
CREATE INDEX outbox_job ON outbox (job);

-- Deliveries of webhooks that were tried; they go with the job.
CREATE TABLE webhook_tries (
    nr      INTEGER PRIMARY KEY,
    job     BLOB NOT NULL,
    message TEXT NOT NULL,
    at      INTEGER NOT NULL,
    took    INTEGER NOT NULL,               -- microseconds
    status  INTEGER,                        -- of the answer, where there was one
    problem TEXT,                           -- why it was not acknowledged
    next_at INTEGER                         -- when it is tried again
);
CREATE INDEX webhook_tries_job ON webhook_tries (job, nr);
