-- `body` is the span's JSON as it is answered; the other columns are what queries need.
-- `trace` spares the list of traces a walk over all spans, and knows traces whose root has not arrived.
CREATE TABLE span (
    trace_id TEXT NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER,
    body TEXT NOT NULL,
    PRIMARY KEY (trace_id, id)
) STRICT;
CREATE INDEX span_by_id ON span (id);
CREATE INDEX root_by_start ON span (start_ns) WHERE parent_id IS NULL;
CREATE INDEX root_of_trace ON span (trace_id, start_ns) WHERE parent_id IS NULL;
CREATE TABLE trace (
    trace_id TEXT PRIMARY KEY,
    start_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX trace_by_start ON trace (start_ns, trace_id);
