"""Does the initialisation keep signals alive?"""
