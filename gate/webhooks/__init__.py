"""Webhooks out: `check.completed`, signed, kept until it is delivered or given up.

Pure: `settings` (the tables), `message` (body, signature, schedule), `endpoint` (when one may be
tried). Shells: `post` (one request through the one door), `outbox` (the worker).
"""
