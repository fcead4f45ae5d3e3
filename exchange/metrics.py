"""Prometheus metrics of one process. No label contains a key, a case or a name of a person."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ACTORS_SLOWED",
    "ADMISSION_REFUSED",
    "AUTHENTICATIONS_FAILED",
    "BACKUP_AGE",
    "CALLS",
    "CALLS_ENDED",
    "CALLS_WAITING",
    "CALL_SECONDS",
    "CALL_WAIT_SECONDS",
    "CERTIFICATE_LEFT",
    "CHECKPOINT_SIZE",
    "CHILD_RESTARTS",
    "CONNECTORS_UNHEARD",
    "DISK_FREE",
    "ENGINES_REPLACED",
    "ENGINE_DIFFERENCES",
    "ENTRIES_REFUSED",
    "GRANT_LAG",
    "GRANT_RECORDS",
    "GRANT_REFUSED",
    "HANDSHAKES_FAILED",
    "LANES_UNREADABLE",
    "LISTENER_CONNECTIONS",
    "LOG_LINES_LOST",
    "POLLS_WAITING",
    "POSTGRES_RESTARTS",
    "PUBLISH_HELD_BACK",
    "PUBLISH_WAITING_BYTES",
    "READY",
    "RECORDS_CORRUPT",
    "RECORDS_PUBLISHED",
    "RECORDS_RELEASED",
    "RECOVERED_RECEIPTS",
    "REPLIES_HELD_BACK",
    "REPLY_BYTES",
    "REQUESTS_ABANDONED",
    "RESOURCE_RECORDS",
    "RESOURCE_REFUSED",
    "ROWS_PUT_BACK",
    "ROWS_REFUSED",
    "SCHEMAS_TOPIC_FAILURES",
    "SEQUENCER_FAILURES",
    "SERVING",
    "UNSEQUENCED_AGE",
    "UNSEQUENCED_ENTRIES",
]

ACTORS_SLOWED = Counter("pool_actors_slowed_total", "Calls refused for want of an actor's budget", ["budget"])
AUTHENTICATIONS_FAILED = Counter(
    "pool_authentications_failed_total",
    "Authentications that failed, or were refused unseen (too_many_failures)",
    ["interface", "reason"],
)
CALLS = Counter("pool_calls_total", "Calls by method and outcome (ok or the reason code)", ["method", "outcome"])
CALL_SECONDS = Histogram(
    "pool_call_seconds",
    "Time of one call; a long poll's wait included",
    ["method"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
)
CALLS_WAITING = Gauge("pool_calls_waiting", "Calls that wait for the turn of their department", ["callers"])
CALL_WAIT_SECONDS = Histogram(
    "pool_call_wait_seconds",
    "Time for which calls waited for their turn, of those that had to",
    ["callers"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
)
ADMISSION_REFUSED = Counter(
    "pool_admission_refused_total",
    "Connections, requests and calls that a listener refused for a bound, before they reached the pool",
    ["listener", "bound"],
)
REQUESTS_ABANDONED = Counter(
    "pool_requests_abandoned_total", "HTTP requests whose client was gone before they were read or begun", ["listener"]
)
LISTENER_CONNECTIONS = Gauge("pool_listener_connections", "Open connections, handshakes included", ["listener"])
HANDSHAKES_FAILED = Counter(
    "pool_handshakes_failed_total", "TLS handshakes that failed or did not end in time", ["listener"]
)
CALLS_ENDED = Counter(
    "pool_calls_ended_total", "Open gRPC calls that were ended, since the certificate or the department was", ["reason"]
)
PUBLISH_WAITING_BYTES = Gauge("pool_publish_waiting_bytes", "Memory of batches that were read and not answered yet")
PUBLISH_HELD_BACK = Counter(
    "pool_publish_held_back_total", "Times that a stream was not read further for want of memory"
)
POLLS_WAITING = Gauge("pool_polls_waiting", "Long polls that wait for records")
REPLY_BYTES = Gauge("pool_reply_bytes", "Memory of answers of fetches that are being made or were not taken yet")
REPLIES_HELD_BACK = Counter("pool_replies_held_back_total", "Times that a fetch waited for want of memory")
RECORDS_PUBLISHED = Counter("pool_records_published_total", "Records acknowledged to connectors")
RECORDS_RELEASED = Counter("pool_records_released_total", "Records released to consumers, withdrawals included")
RESOURCE_RECORDS = Counter("pool_resource_records_total", "Records by resource and what happened", ["resource", "what"])
RESOURCE_REFUSED = Counter("pool_resource_refused_total", "Batches refused to connectors", ["resource", "reason"])
GRANT_RECORDS = Counter("pool_grant_records_total", "Records released under a grant", ["grant", "what"])
GRANT_REFUSED = Counter("pool_grant_refused_total", "Calls of consumers that were denied", ["grant", "reason"])
GRANT_LAG = Gauge("pool_grant_lag_records", "Records of the topic behind a grant's last fetch here", ["grant"])
RECORDS_CORRUPT = Counter(
    "pool_records_corrupt_total", "Reads and appends refused: stored records were changed or are missing", ["topic"]
)
RECOVERED_RECEIPTS = Counter("pool_recovered_receipts_total", "Publications whose entry the sweeper wrote")
ROWS_PUT_BACK = Counter(
    "pool_rows_put_back_total", "Rows that are older than they were, gone, or not what the log says", ["table", "what"]
)
ROWS_REFUSED = Counter("pool_rows_refused_total", "Rows of the database that the pool did not write", ["table"])
CONNECTORS_UNHEARD = Gauge(
    "pool_connectors_unheard", "Connectors whose last report is three intervals old and said no end", ["department"]
)
LANES_UNREADABLE = Gauge("pool_lanes_unreadable", "Lanes whose receipts the broker could not read at the last sweep")
UNSEQUENCED_ENTRIES = Gauge("pool_unsequenced_entries", "Audit entries that wait for their place in the log")
UNSEQUENCED_AGE = Gauge("pool_unsequenced_age_seconds", "Time for which an entry may have waited to be signed")
CHECKPOINT_SIZE = Gauge("pool_checkpoint_size", "Leaves under the newest signed checkpoint")
ENTRIES_REFUSED = Counter("pool_entries_refused_total", "Entries in the database that no known process wrote")
SERVING = Gauge("pool_serving", "1 while records are released and receipts given, 0 while the log is not signed")
READY = Gauge("pool_ready", "1 while a check of /readyz passes, 0 while it fails", ["check"])
DISK_FREE = Gauge("pool_disk_free_ratio", "Share of the disk of the pool's folder that is free")
CERTIFICATE_LEFT = Gauge("pool_certificate_seconds_left", "Time until a certificate of the pool ends", ["certificate"])
BACKUP_AGE = Gauge("pool_backup_age_seconds", "Time since the last backup; infinite where there was none")
SEQUENCER_FAILURES = Counter("pool_sequencer_failures_total", "Steps of the sequencer that failed", ["reason"])
LOG_LINES_LOST = Counter("pool_log_lines_lost_total", "Log lines that standard error did not take")
POSTGRES_RESTARTS = Counter(
    "pool_embedded_postgres_restarts_total", "Attempts to start the embedded PostgreSQL again", ["outcome"]
)
CHILD_RESTARTS = Counter(
    "pool_child_restarts_total", "Attempts to start a process beside the first one again", ["process", "outcome"]
)
ENGINE_DIFFERENCES = Counter("pool_engine_differences_total", "Batches on which the two Avro engines differed")
ENGINES_REPLACED = Counter("pool_engines_replaced_total", "Engine processes that were killed or died", ["why"])
SCHEMAS_TOPIC_FAILURES = Counter(
    "pool_schemas_topic_failures_total", "Turns of sending to the topic of schemas that failed", ["reason"]
)

# Series whose first event an alarm about a rate must see: a series that begins with it has not risen.
SEQUENCER_FAILURES.labels("clock_jumped")
for _outcome in ("started", "failed"):
    POSTGRES_RESTARTS.labels(_outcome)
    for _process in ("control", "registry"):
        CHILD_RESTARTS.labels(_process, _outcome)
