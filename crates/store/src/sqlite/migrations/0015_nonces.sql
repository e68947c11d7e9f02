-- Nonces of signed requests that were let in: a request that somebody recorded is refused after a restart as well.
CREATE TABLE signed_nonces (
    nonce BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX signed_nonces_until ON signed_nonces (until);
