-- How long a job's data is kept beside its endpoint's retention: when its own time is over, what is added to its end, and
-- what follows from both once it ended.
ALTER TABLE jobs ADD COLUMN lives_until INTEGER;
ALTER TABLE jobs ADD COLUMN kept INTEGER;                -- microseconds
ALTER TABLE jobs ADD COLUMN delete_at INTEGER;
CREATE INDEX jobs_delete ON jobs (delete_at) WHERE delete_at IS NOT NULL;
