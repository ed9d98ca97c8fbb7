-- Indexes by texts of 36 bytes are most of what storing a span costs. So a trace gets a number, in
-- the order in which traces come, and spans are found by it and by hashes: small entries, next to
-- those of the spans that came before.
CREATE TABLE new_trace (
    key INTEGER PRIMARY KEY,
    trace_id TEXT NOT NULL UNIQUE,
    start_ns INTEGER NOT NULL,
    -- When a span of the trace was last written, by the collector's clock.
    written_s INTEGER NOT NULL
) STRICT;
INSERT INTO new_trace (trace_id, start_ns, written_s)
SELECT trace_id, start_ns, written_s FROM trace ORDER BY written_s, start_ns;
-- A span always had its trace noted: this is for files that were changed from outside.
INSERT INTO new_trace (trace_id, start_ns, written_s)
SELECT trace_id, min(start_ns), unixepoch() FROM span
WHERE trace_id NOT IN (SELECT trace_id FROM new_trace) GROUP BY trace_id;
DROP TABLE trace;
ALTER TABLE new_trace RENAME TO trace;
CREATE INDEX trace_by_start ON trace (start_ns, trace_id);
CREATE INDEX trace_by_written ON trace (written_s);

CREATE TABLE new_span (
    -- The order in which they arrived: the row number.
    arrival INTEGER PRIMARY KEY,
    -- The number of the trace.
    trace_key INTEGER NOT NULL,
    -- The number of the part of the file, and a hash of the id: `id_key` in the collector's code.
    id_key INTEGER NOT NULL,
    -- The same of the parent's id, with the number of the part that this span is in.
    parent_key INTEGER,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER,
    -- In classes of 16 to each doubling: `duration_class` in the collector's code.
    duration_class INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    trace_id TEXT NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    group_id TEXT,
    application_variant_id TEXT,
    obs_trace_id TEXT,
    obs_span_id TEXT,
    body TEXT NOT NULL
) STRICT;
INSERT INTO new_span
SELECT arrival, (SELECT key FROM trace WHERE trace.trace_id = span.trace_id), id_key,
    CASE WHEN parent_id IS NOT NULL THEN id_key(arrival, parent_id) END,
    start_ns, end_ns, duration_class, input_tokens, output_tokens, trace_id, id, parent_id, name,
    status, type, group_id, application_variant_id, obs_trace_id, obs_span_id, body
FROM span ORDER BY arrival;
DROP TABLE span;
ALTER TABLE new_span RENAME TO span;

-- By the hash alone. Spans of a trace that share one are told apart by their ids.
CREATE INDEX span_by_ids ON span (trace_key, id_key & 281474976710655);
CREATE INDEX span_by_id ON span (id_key);
CREATE INDEX span_by_parent ON span (parent_key) WHERE parent_key IS NOT NULL;
CREATE INDEX span_of_trace ON span (trace_key, start_ns);
CREATE INDEX root_by_start ON span (start_ns) WHERE parent_id IS NULL;
CREATE INDEX root_of_trace ON span (trace_key, start_ns) WHERE parent_id IS NULL;
-- Holds what the common filters look at, so that a walk by time need not visit the rows.
CREATE INDEX span_by_start ON span (start_ns, end_ns, status, type, name);
-- Few spans fail, and those are what people look for.
CREATE INDEX failed_by_start ON span (status, start_ns) WHERE status <> 'SUCCESS';
-- Most spans have a type that says little.
CREATE INDEX typed_by_start ON span (type, start_ns) WHERE type NOT IN ('CUSTOM', 'STANDALONE');
CREATE INDEX span_by_name ON span (name, start_ns);
CREATE INDEX span_by_duration ON span (duration_class);
CREATE INDEX span_by_input_tokens ON span (ifnull(input_tokens, 0)) WHERE input_tokens > 0;
CREATE INDEX span_by_output_tokens ON span (ifnull(output_tokens, 0)) WHERE output_tokens > 0;
CREATE INDEX span_by_group ON span (group_id, start_ns) WHERE group_id IS NOT NULL;
CREATE INDEX span_by_variant ON span (application_variant_id) WHERE application_variant_id IS NOT NULL;
CREATE INDEX span_by_obs_trace ON span (obs_trace_id) WHERE obs_trace_id IS NOT NULL;
CREATE INDEX span_by_obs_span ON span (obs_span_id) WHERE obs_span_id IS NOT NULL;
