-- Agents whose epochs an operator lets be forgotten (`retire --forget`): the server does it with its next commit.
CREATE TABLE catchment_forget (
    agent TEXT PRIMARY KEY
) WITHOUT ROWID;
