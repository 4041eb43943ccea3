"""The signup gate: tells a signup form, in milliseconds, whether an address can receive mail."""

__version__ = "0.1.0"
