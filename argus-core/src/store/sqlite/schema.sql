CREATE TABLE schema_info (
    version INTEGER PRIMARY KEY,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE log_info (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    log_id TEXT NOT NULL,
    canonical INTEGER NOT NULL,
    first_seq INTEGER NOT NULL
);

CREATE TABLE writers (
    id INTEGER PRIMARY KEY,
    writer TEXT NOT NULL UNIQUE,
    service_name TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE audit_events (
    id INTEGER PRIMARY KEY,
    timestamp TEXT NOT NULL,
    level TEXT NOT NULL,
    event TEXT NOT NULL,
    component TEXT NOT NULL,
    original_output_file TEXT NOT NULL,
    file_path TEXT,
    old_value TEXT,
    new_value TEXT,
    user_agent TEXT,
    process_id INTEGER NOT NULL,
    process_name TEXT NOT NULL,
    context TEXT,
    checksum TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
    actor_id TEXT,
    actor_type TEXT,
    action TEXT,
    outcome TEXT,
    trace_id TEXT,
    span_id TEXT,
    stack TEXT,
    record_id TEXT,
    writer INTEGER REFERENCES writers(id),
    writer_seq INTEGER,
    CHECK (record_id IS NULL OR (context IS NOT NULL AND checksum IS NOT NULL AND created_at IS NOT NULL
        AND writer IS NOT NULL AND writer_seq IS NOT NULL))
);

CREATE TABLE foreign_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp, level, event, component, original_output_file, file_path, old_value, new_value, user_agent,
    process_id, process_name, context, checksum, created_at
);

CREATE UNIQUE INDEX idx_audit_record_id ON audit_events(record_id);

CREATE INDEX idx_audit_timestamp ON audit_events(timestamp);

CREATE INDEX idx_audit_level_created ON audit_events(level, created_at);

CREATE INDEX idx_audit_file ON audit_events(file_path) WHERE file_path IS NOT NULL;

CREATE INDEX idx_audit_trace ON audit_events(trace_id) WHERE trace_id IS NOT NULL;

CREATE TRIGGER argus_no_delete BEFORE DELETE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'argus: audit records cannot be deleted');
END;

CREATE TRIGGER argus_no_update BEFORE UPDATE ON audit_events
BEGIN
    SELECT RAISE(ABORT, 'argus: audit records cannot be changed');
END;

CREATE TRIGGER argus_no_replace BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events WHERE id = NEW.id OR record_id = NEW.record_id)
BEGIN
    SELECT RAISE(ABORT, 'argus: audit records cannot be replaced');
END;

CREATE TRIGGER argus_foreign_insert BEFORE INSERT ON audit_events
WHEN NEW.record_id IS NULL
BEGIN
    INSERT INTO foreign_events (timestamp, level, event, component, original_output_file, file_path, old_value, new_value,
        user_agent, process_id, process_name, context, checksum, created_at)
    VALUES (NEW.timestamp, NEW.level, NEW.event, NEW.component, NEW.original_output_file, NEW.file_path, NEW.old_value, NEW.new_value,
        NEW.user_agent, NEW.process_id, NEW.process_name, NEW.context, NEW.checksum, NEW.created_at);
    SELECT RAISE(IGNORE);
END;
