-- Items lie in their table by queue and index, which saves the index that said where they lie, and know whose result they
-- are.

CREATE TABLE items_new (
    queue       INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    put_at      INTEGER NOT NULL,
    taken_until INTEGER,                     -- a reader is being sent it, and it goes once that was written
    taken_by    TEXT,                        -- the server that sends it
    job         INTEGER,                     -- the job that stands behind it; such an item is never delivered
    result_of   BLOB,                        -- id of the job whose result it is
    request_id  TEXT NOT NULL,
    tags        TEXT NOT NULL,               -- JSON object of texts
    size        INTEGER NOT NULL,
    blob        TEXT,
    inline      BLOB,
    PRIMARY KEY (queue, idx)
) WITHOUT ROWID;
INSERT INTO items_new SELECT queue, idx, priority, put_at, taken_until, taken_by, job, NULL, request_id, tags, size, blob, inline
    FROM items;
DROP TABLE items;
ALTER TABLE items_new RENAME TO items;
CREATE INDEX items_line    ON items (queue, priority, idx);
CREATE INDEX items_request ON items (queue, request_id, idx);
CREATE INDEX items_job     ON items (job) WHERE job IS NOT NULL;
CREATE INDEX items_taken   ON items (queue, taken_until) WHERE taken_until IS NOT NULL;
