"""How many weights are needed, and which?"""
