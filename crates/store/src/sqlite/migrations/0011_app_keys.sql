-- Keys of protocols that sign: the public half, and the secret one encrypted by the server, which needs it back.
ALTER TABLE keys ADD COLUMN app_key TEXT;
ALTER TABLE keys ADD COLUMN app_secret BLOB;
CREATE UNIQUE INDEX keys_app ON keys (app_key) WHERE app_key IS NOT NULL;
