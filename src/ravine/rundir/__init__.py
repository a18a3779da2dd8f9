"""The run directory: recipes, measurements, and the places of snapshots. It imports no torch, so that reports
open at once."""

from ravine.rundir.directory import RunDir, environment, fresh_path, snapshot_step
from ravine.rundir.measurements import CHUNK

__all__ = ["CHUNK", "RunDir", "environment", "fresh_path", "snapshot_step"]
