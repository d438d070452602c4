"""The caches that are compared, each behind the same few calls and with the same semantics.

A module for each library: whoever measures one peer in a fresh process imports no other.
"""
