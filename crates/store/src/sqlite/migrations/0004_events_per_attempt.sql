-- The cap on a job's durable events counts from where its attempt began.
ALTER TABLE jobs ADD COLUMN events_from INTEGER NOT NULL DEFAULT 0;
