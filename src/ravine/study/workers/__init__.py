"""Who trains the recipes of a study: this process, several that share a directory, or Ray."""
