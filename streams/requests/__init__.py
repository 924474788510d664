"""Requests and their replies as records of two topics.

A `Requester` writes requests and waits for the replies, on its own partition of the topic of
replies; any number of them work at once. A `RequestLoop` takes its share of the requests and
answers them, at least once.
"""
