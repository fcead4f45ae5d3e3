"""Conformance test suites for authors of sources and sinks: inherit one, and override what builds your connector.

    SnapshotSourceSuite   of a source that states what is: files, tables
    ChangeSourceSuite     of a source that has a log of changes
    SinkSuite             of a sink

They hold what publishers and subscriber rely on (`connectors.port`), and use no pool and no network.
"""

from connectors.conformance.change_sources import ChangeSourceSuite
from connectors.conformance.sinks import SCHEMA, SinkSuite, expect_no_rejects, make_release
from connectors.conformance.snapshot_sources import COLUMNS, Row, SnapshotSourceSuite

__all__ = [
    "COLUMNS",
    "SCHEMA",
    "ChangeSourceSuite",
    "Row",
    "SinkSuite",
    "SnapshotSourceSuite",
    "expect_no_rejects",
    "make_release",
]
