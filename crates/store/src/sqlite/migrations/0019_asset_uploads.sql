-- Assets on their way in, a piece at a time. Each piece has a reference: owner 'asset-upload:<id>', name its offset as 20 digits.
CREATE TABLE asset_uploads (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    terms      TEXT NOT NULL,                -- JSON: what its caller said of the file
    received   INTEGER NOT NULL,
    pieces     INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX asset_uploads_expiry ON asset_uploads (expires_at);
