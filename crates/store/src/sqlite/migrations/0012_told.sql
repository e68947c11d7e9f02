-- How many durable events of an attempt were taken from who tells them from afar, and who that is: told again after a lost
-- answer, they are stored once.
ALTER TABLE attempts ADD COLUMN teller BLOB;
ALTER TABLE attempts ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
