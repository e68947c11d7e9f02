-- Callers without a key share a tenant and are strangers: the same bytes under the same path are an asset of each of them.
DROP INDEX assets_same;
CREATE INDEX assets_same ON assets (tenant, blob, file_path);
