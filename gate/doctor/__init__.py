"""`gate doctor`: is this gate fit for the internet, and if not, what is to be done about it?

Mail hosts refuse a prober for its name, its address, its sender and its past, and then every answer
is `unknown`. Each check here looks at one of these things from outside, as a mail host would.

A check is a module with two halves: a function that looks up, and a pure one that judges what was
found. What comes of it is a `Finding`: what is so, why it matters, how to mend it.
"""

from __future__ import annotations
