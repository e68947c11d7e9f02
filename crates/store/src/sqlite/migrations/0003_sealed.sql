-- Credentials of a request, encrypted; gone when the job ends.
CREATE TABLE sealed (
    job   INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
);
