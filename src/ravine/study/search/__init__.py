"""Which hyper-parameters are better?"""
