"""Do the checks of the first minutes hold?"""
