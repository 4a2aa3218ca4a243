"""Secure aggregation ``fedembed-secagg/1``: a coordinator learns the sum of its clients' vectors and nothing else.

Pure functions and state machines: bytes in, bytes out, no files and no network. Every random byte comes through one
callable ``entropy(size)``: ``os.urandom``, except where a test replays a frozen transcript. Whatever does not fit
raises ``SecAggError``, whose ``code`` names the rule and whose message holds no secret.
"""
