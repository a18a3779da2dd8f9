"""Studies: each makes a list of recipes (or rows of theta), gives it to the engine, and writes a
study directory."""
