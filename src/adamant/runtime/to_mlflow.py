"""The log as MLflow reads it; the only file that knows MLflow."""

from __future__ import annotations

from typing import Any

from adamant.errors import MissingExtraError
from adamant.runtime.log import Entry, Reader, curves


def reader(name: str) -> Reader:
    """Writes parameters, curves and events of a run of that name, where MLFLOW_TRACKING_URI says.

    Raises MissingExtraError where MLflow is not installed.
    """
    try:
        import mlflow  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "MLflow is not installed, and it was asked for: pip install 'adamant[mlflow]'."
        ) from None
    client: Any = mlflow.MlflowClient()
    run: list[str] = []

    def tell(entry: Entry) -> None:
        what, step = entry["what"], entry["step"]
        if not run:
            run.append(client.create_run("0", run_name=name).info.run_id)
        if what in ("start", "resumed"):
            for key in entry.keys() - {"what", "step", "seconds"}:
                client.log_param(run[0], key, str(entry[key])[:500])
        elif what == "epoch":
            for key, value in curves(entry).items():
                client.log_metric(run[0], key, value, step=step)
        elif what == "back":
            client.set_tag(run[0], f"back at step {step}", entry["why"])
        else:
            client.set_terminated(run[0], "FINISHED" if what == "end" else "KILLED")

    return tell
