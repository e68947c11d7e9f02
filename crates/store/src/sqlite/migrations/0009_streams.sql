-- How far callers were given what a handler yielded (the number of an event), and how many jobs of an endpoint ended.
ALTER TABLE jobs ADD COLUMN streamed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN completed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN retried INTEGER NOT NULL DEFAULT 0;
