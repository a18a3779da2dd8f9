"""Starters: from a person's data to the recipe that an expert would begin with.

`guess` finds out what a path holds, `look` loads it and states the facts, `rules` choose every
field and say why, `sizing` fits the length of the run to the time there is, `written` writes the
recipe with a comment for each choice. `starter` is all of it. Training the written recipe gives
the same bits: nothing is decided outside it.
"""
