"""A run's measurements in MLflow, through its own client (extra: mlflow)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ravine.errors import InputError
from ravine.interop.tracking import Tracker, fields_of, final_numbers
from ravine.rundir import RunDir

_KIND = "mlflow"  # of the event that says which MLflow run a member is
_LONGEST = 500  # characters of a parameter


@dataclass(frozen=True)
class MLflow(Tracker):
    """An MLflow run for each member. ``uri``: the tracking server or ``sqlite:///mlflow.db``; by default
    what ``MLFLOW_TRACKING_URI`` says. A run that is resumed goes on in the same MLflow run."""

    uri: str | None = None
    experiment: str = "ravine"

    def begin(self, rundir: RunDir, member: int) -> _MLflowRun:
        """The MLflow run of a member, with the recipe's fields as its parameters."""
        try:
            from mlflow.entities import Param
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise InputError(
                "mlflow", expected="MLflow", repair="pip install 'ravine[mlflow]'"
            ) from None
        client = MlflowClient(tracking_uri=self.uri)
        for event in rundir.events(_KIND):
            if event["member"] == member:
                return _MLflowRun(client, event["data"]["run"])
        found = client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else client.create_experiment(self.experiment)
        recipe = rundir.recipes[member]
        tags = {"ravine.run": str(rundir.path), "ravine.member": str(member)}
        name = f"{recipe.name}-{member}" if len(rundir.recipes) > 1 else recipe.name
        identity = client.create_run(number, run_name=name, tags=tags).info.run_id
        fields = fields_of(recipe).items()
        params = [Param(key, str(value)[:_LONGEST]) for key, value in fields if value is not None]
        for start in range(0, len(params), 100):
            client.log_batch(identity, params=params[start : start + 100])
        rundir.add_event(0, member, _KIND, f"MLflow run {identity}", {"run": identity})
        return _MLflowRun(client, identity)


class _MLflowRun:
    def __init__(self, client: Any, identity: str):
        self.client, self.identity = client, identity
        self._texts: dict[str, str] = {}

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.identity, metrics=metrics)

    def text(self, name: str, text: str, step: int) -> None:
        held = f"{self._texts.get(name, '')}step {step}: {text}\n"
        self._texts[name] = held
        self.client.set_tag(self.identity, name.replace("/", "."), held[-5000:])

    def close(self, result: Mapping[str, Any] | None) -> None:
        if result is None:  # it was interrupted, and may go on
            return
        self.numbers(final_numbers(result), int(result.get("steps", 0)))
        status = "FAILED" if result.get("stopped") == "diverged" else "FINISHED"
        self.client.set_terminated(self.identity, status)
