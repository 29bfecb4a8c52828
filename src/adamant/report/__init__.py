"""One self-contained HTML page from run folders, and the schema of what they hold."""

from adamant.report.page import write_page
from adamant.report.reading import Evidence, Row, read_evidence, read_result, read_rows
from adamant.report.records import (
    Accuracy,
    AuditResult,
    ClassResult,
    Cost,
    CurvePoint,
    Data,
    Epoch,
    Model,
    Provenance,
    Stage,
    Statuses,
    Threat,
    TrainingResult,
)
from adamant.report.schema import schema

__all__ = [
    "Accuracy",
    "AuditResult",
    "ClassResult",
    "Cost",
    "CurvePoint",
    "Data",
    "Epoch",
    "Evidence",
    "Model",
    "Provenance",
    "Row",
    "Stage",
    "Statuses",
    "Threat",
    "TrainingResult",
    "read_evidence",
    "read_result",
    "read_rows",
    "schema",
    "write_page",
]
