"""Ravine's version, for whatever must carry it."""

VERSION = "0.1.0"
