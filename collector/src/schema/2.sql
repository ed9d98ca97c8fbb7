-- Columns for the filters and orders of a search, an index of words, assessments, and what
-- retention needs. The body comes last, so that no column lies behind a long one.
CREATE TABLE new_span (
    trace_id TEXT NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    group_id TEXT,
    application_variant_id TEXT,
    obs_trace_id TEXT,
    obs_span_id TEXT,
    body TEXT NOT NULL,
    PRIMARY KEY (trace_id, id)
) STRICT;
-- In order of arrival, which is that of the rows. Token counts of spans from before stay unknown.
INSERT INTO new_span (
    rowid, trace_id, id, parent_id, start_ns, end_ns, name, status, type,
    group_id, application_variant_id, obs_trace_id, obs_span_id, body
)
SELECT rowid, trace_id, id, parent_id, start_ns, end_ns,
    body ->> '$.name', ifnull(body ->> '$.status', 'SUCCESS'), ifnull(body ->> '$.type', 'STANDALONE'),
    body ->> '$.group_id', body ->> '$.application_variant_id',
    body ->> '$.obs_trace_id', body ->> '$.obs_span_id', body
FROM span ORDER BY rowid;
DROP TABLE span;
ALTER TABLE new_span RENAME TO span;

CREATE INDEX span_by_id ON span (id);
CREATE INDEX span_by_parent ON span (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX span_of_trace ON span (trace_id, start_ns);
CREATE INDEX root_by_start ON span (start_ns) WHERE parent_id IS NULL;
CREATE INDEX root_of_trace ON span (trace_id, start_ns) WHERE parent_id IS NULL;
-- Holds what the common filters look at, so that a walk by time need not visit the rows.
CREATE INDEX span_by_start ON span (start_ns, end_ns, status, type, name);
-- Few spans fail, and those are what people look for.
CREATE INDEX failed_by_start ON span (status, start_ns) WHERE status <> 'SUCCESS';
CREATE INDEX span_by_name ON span (name, start_ns);
CREATE INDEX span_by_duration ON span (ifnull(end_ns - start_ns, -1));
CREATE INDEX span_by_input_tokens ON span (ifnull(input_tokens, 0));
CREATE INDEX span_by_output_tokens ON span (ifnull(output_tokens, 0));
CREATE INDEX span_by_group ON span (group_id, start_ns) WHERE group_id IS NOT NULL;
CREATE INDEX span_by_variant ON span (application_variant_id) WHERE application_variant_id IS NOT NULL;
CREATE INDEX span_by_obs_trace ON span (obs_trace_id) WHERE obs_trace_id IS NOT NULL;
CREATE INDEX span_by_obs_span ON span (obs_span_id) WHERE obs_span_id IS NOT NULL;

-- Which words occur in a span, by row: a search looks here first and at the spans after. Spans
-- come into it some time after they were stored: those above `up_to` and those in `stale_text`
-- are still to be done.
CREATE VIRTUAL TABLE span_text USING fts5(
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
CREATE TABLE text_progress (up_to INTEGER NOT NULL) STRICT;
INSERT INTO text_progress VALUES (0);
CREATE TABLE stale_text (span_row INTEGER PRIMARY KEY) STRICT;

-- When a span of the trace was last written, by the collector's clock.
ALTER TABLE trace ADD COLUMN written_s INTEGER NOT NULL DEFAULT 0;
UPDATE trace SET written_s = unixepoch();
CREATE INDEX trace_by_written ON trace (written_s);

CREATE TABLE assessment (
    id TEXT PRIMARY KEY,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    type TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX assessment_of_span ON assessment (trace_id, span_id);
CREATE INDEX assessment_by_span ON assessment (span_id);
