"""The HTTP surface: one small file for each thing a caller can see.

`front` receives every request and answers the three hot routes itself; `checks`, `siteverify` and
`ops` are the surfaces; `guard`, `sites`, `quota` and `peer` say who may ask how often; `requests`,
`answer`, `reply` and `problems` are what goes in and out; `openapi` describes it; `journal` writes
the one log line of each decision.
"""
