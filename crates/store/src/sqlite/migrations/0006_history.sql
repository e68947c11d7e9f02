-- When a job ended, as long as it stands in its tenant's history of the endpoint; NULL: it has not ended, was taken out, or
-- was cancelled before it ever began.
ALTER TABLE jobs ADD COLUMN history INTEGER;
UPDATE jobs SET history = finished_at
WHERE finished_at IS NOT NULL AND NOT (state = 'cancelled' AND started_at IS NULL);
CREATE INDEX jobs_history ON jobs (tenant, endpoint, history) WHERE history IS NOT NULL;
CREATE INDEX jobs_shown   ON jobs (tenant, endpoint, id) WHERE history IS NOT NULL;

-- How long histories are, so that nobody counts rows.
CREATE TABLE history_lengths (
    tenant   TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state    TEXT NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (tenant, endpoint, state)
) WITHOUT ROWID;
INSERT INTO history_lengths (tenant, endpoint, state, n)
SELECT tenant, endpoint, state, COUNT(*) FROM jobs WHERE history IS NOT NULL GROUP BY tenant, endpoint, state;

-- Triggers, because a row leaves in many ways: retried, taken out, swept.
CREATE TRIGGER jobs_history_in AFTER UPDATE OF history ON jobs
WHEN OLD.history IS NULL AND NEW.history IS NOT NULL
BEGIN
    INSERT INTO history_lengths (tenant, endpoint, state, n) VALUES (NEW.tenant, NEW.endpoint, NEW.state, 1)
    ON CONFLICT (tenant, endpoint, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_history_out AFTER UPDATE OF history ON jobs
WHEN OLD.history IS NOT NULL AND NEW.history IS NULL
BEGIN
    UPDATE history_lengths SET n = n - 1
    WHERE tenant = OLD.tenant AND endpoint = OLD.endpoint AND state = OLD.state;
END;
CREATE TRIGGER jobs_history_gone AFTER DELETE ON jobs
WHEN OLD.history IS NOT NULL
BEGIN
    UPDATE history_lengths SET n = n - 1
    WHERE tenant = OLD.tenant AND endpoint = OLD.endpoint AND state = OLD.state;
END;
