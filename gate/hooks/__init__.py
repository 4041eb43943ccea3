"""Signup hooks: what auth platforms send before they create a user, and what they understand.

One file a platform, each an `Adapter`: it proves that a call is the platform's, finds the address
in it, and says allow or deny in the platform's own words. Nothing here asks a mail server, reads a
clock or opens a connection; gate/api/hooks.py does what has to be done in between.

How each is set up stands in the docstring of its file, and in a table in README.
"""
