"""The run directory: recipes, measurements, and the places of snapshots. It imports no torch, so that reports
open at once."""

from ravine.rundir.measurements import CHUNK
from ravine.rundir.rundir import RunDir, environment, fresh_path, snapshot_step

__all__ = ["CHUNK", "RunDir", "environment", "fresh_path", "snapshot_step"]
