-- What tenants' files hold, so that the same bytes are kept once for each. A row goes in the step that gives its blob up.
CREATE TABLE contents (
    tenant TEXT NOT NULL,
    blake3 BLOB NOT NULL,
    sha256 BLOB NOT NULL,
    size   INTEGER NOT NULL,
    blob   TEXT NOT NULL UNIQUE,
    PRIMARY KEY (tenant, blake3)
) WITHOUT ROWID;
CREATE INDEX contents_sha256 ON contents (tenant, sha256);

-- Files that callers brought by id. Each has a reference to its blob: owner 'asset:<tenant>', name its id.
CREATE TABLE assets (
    id           BLOB PRIMARY KEY,
    tenant       TEXT NOT NULL,
    blob         TEXT NOT NULL,              -- of `contents`
    file_path    TEXT NOT NULL,              -- empty: none
    content_type TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    brought_at   INTEGER NOT NULL,           -- when it was brought last: of one path the newest counts
    expires_at   INTEGER                     -- none: never
) WITHOUT ROWID;
CREATE UNIQUE INDEX assets_same ON assets (tenant, blob, file_path);
CREATE INDEX assets_path   ON assets (tenant, file_path, brought_at);
CREATE INDEX assets_tenant ON assets (tenant, id);
CREATE INDEX assets_expiry ON assets (expires_at) WHERE expires_at IS NOT NULL;
