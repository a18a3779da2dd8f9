"""The gallery: what deep learning lectures say of training, each claim checked by a run.

A script of the gallery is a module ``NN_name.py`` in ``examples/gallery``: its docstring gives a
title, ``Claim:`` and ``To see it fail:``; its function ``draw(item)`` trains, states what it
measured by ``item.claim`` and gives back one figure.
"""
