-- Who may see a draft is decided by its endpoint; older drafts have none, and are for those who may publish everywhere.
ALTER TABLE workflows ADD COLUMN draft_endpoint TEXT;
-- The endpoints of a workflow's versions decide who may change it.
CREATE INDEX workflow_versions_on ON workflow_versions (workflow, endpoint);
