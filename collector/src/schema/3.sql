-- Spans come with random ids and lengths. An index by these has each new span change a page of its
-- own, which costs more than all the rest, and the more the bigger the file. So these indexes are
-- kept to places that many new spans share: ids by the part of the file that their row is in, and
-- lengths by their size, roughly.
CREATE TABLE new_span (
    -- The order in which they arrived: the row number.
    arrival INTEGER PRIMARY KEY,
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
    -- The number of the part, and a hash of the id: `id_key` in the collector's code.
    id_key INTEGER NOT NULL,
    -- In classes of 16 to each doubling: `duration_class` in the collector's code.
    duration_class INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
INSERT INTO new_span
SELECT rowid, trace_id, id, parent_id, start_ns, end_ns, name, status, type, input_tokens,
    output_tokens, group_id, application_variant_id, obs_trace_id, obs_span_id,
    id_key(rowid, id), duration_class(end_ns - start_ns), body
FROM span ORDER BY rowid;
DROP TABLE span;
ALTER TABLE new_span RENAME TO span;

-- The parts that hold rows, or have held some.
CREATE TABLE part (part INTEGER PRIMARY KEY) STRICT;
INSERT INTO part SELECT DISTINCT arrival >> 14 FROM span;

CREATE UNIQUE INDEX span_by_ids ON span (trace_id, id);
CREATE INDEX span_by_id ON span (id_key);
CREATE INDEX span_by_parent ON span (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX span_of_trace ON span (trace_id, start_ns);
CREATE INDEX root_by_start ON span (start_ns) WHERE parent_id IS NULL;
CREATE INDEX root_of_trace ON span (trace_id, start_ns) WHERE parent_id IS NULL;
-- Holds what the common filters look at, so that a walk by time need not visit the rows.
CREATE INDEX span_by_start ON span (start_ns, end_ns, status, type, name);
-- Few spans fail, and those are what people look for.
CREATE INDEX failed_by_start ON span (status, start_ns) WHERE status <> 'SUCCESS';
CREATE INDEX span_by_name ON span (name, start_ns);
CREATE INDEX span_by_duration ON span (duration_class);
CREATE INDEX span_by_input_tokens ON span (ifnull(input_tokens, 0)) WHERE input_tokens > 0;
CREATE INDEX span_by_output_tokens ON span (ifnull(output_tokens, 0)) WHERE output_tokens > 0;
CREATE INDEX span_by_group ON span (group_id, start_ns) WHERE group_id IS NOT NULL;
CREATE INDEX span_by_variant ON span (application_variant_id) WHERE application_variant_id IS NOT NULL;
CREATE INDEX span_by_obs_trace ON span (obs_trace_id) WHERE obs_trace_id IS NOT NULL;
CREATE INDEX span_by_obs_span ON span (obs_span_id) WHERE obs_span_id IS NOT NULL;
