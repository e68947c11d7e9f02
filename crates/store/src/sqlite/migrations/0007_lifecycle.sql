-- Since when an operator keeps the endpoint's line from being served; NULL: it is served.
ALTER TABLE queues ADD COLUMN paused_since INTEGER;
-- Attempts that failed because the device was out of memory.
ALTER TABLE jobs ADD COLUMN out_of_memory INTEGER NOT NULL DEFAULT 0;
