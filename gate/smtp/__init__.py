"""Asking a mail server about one mailbox: pure machines (replies, dialogue) and their shells."""
