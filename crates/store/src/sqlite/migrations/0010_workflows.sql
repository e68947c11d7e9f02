-- Published workflows. A version is written once and never changed; aliases point at versions, and every move is kept.
CREATE TABLE workflows (
    nr           INTEGER PRIMARY KEY,
    tenant       TEXT NOT NULL,
    id           TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    last_version INTEGER NOT NULL DEFAULT 0,
    draft_inline BLOB,
    draft_blob   TEXT,
    draft_size   INTEGER,
    draft_at     INTEGER,
    UNIQUE (tenant, id)
);
CREATE TABLE workflow_versions (
    nr           INTEGER PRIMARY KEY,
    workflow     INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    endpoint     TEXT NOT NULL,
    note         TEXT NOT NULL,
    published_at INTEGER NOT NULL,
    published_by TEXT NOT NULL,
    inline       BLOB,
    blob         TEXT,
    size         INTEGER NOT NULL,
    UNIQUE (workflow, version)
);
CREATE TABLE workflow_aliases (
    workflow INTEGER NOT NULL,
    name     TEXT NOT NULL,
    version  INTEGER NOT NULL,
    PRIMARY KEY (workflow, name)
) WITHOUT ROWID;
CREATE TABLE workflow_moves (
    nr           INTEGER PRIMARY KEY,
    workflow     INTEGER NOT NULL,
    alias        TEXT NOT NULL,
    from_version INTEGER,
    to_version   INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    moved_by     TEXT NOT NULL,
    rollback     INTEGER NOT NULL
);
CREATE INDEX workflow_moves_of ON workflow_moves (workflow, alias, nr);
