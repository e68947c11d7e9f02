-- The clients' own labels of jobs, found by label in the order of job ids.
CREATE TABLE labels (
    job    INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    id     BLOB NOT NULL,                    -- of the job
    PRIMARY KEY (job, key)
) WITHOUT ROWID;
CREATE INDEX labels_found ON labels (tenant, key, value, id);
