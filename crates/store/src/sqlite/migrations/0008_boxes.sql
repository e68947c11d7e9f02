-- What each box of an endpoint can do; before, only that of the newest instance was kept. Which box that was is not
-- known, so it is learned anew.
DROP TABLE object_info;
CREATE TABLE object_infos (
    endpoint TEXT NOT NULL,
    box      TEXT NOT NULL,
    json     BLOB NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (endpoint, box)
);
ALTER TABLE instances ADD COLUMN box TEXT NOT NULL DEFAULT '';

-- What graphs need of a box; jobs that need the same share a row.
CREATE TABLE needs (
    nr   INTEGER PRIMARY KEY,
    json TEXT NOT NULL UNIQUE
);
ALTER TABLE jobs ADD COLUMN needs INTEGER;
