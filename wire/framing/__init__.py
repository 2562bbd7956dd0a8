"""How bytes are framed, whoever's API it is: events, codings, JSON, header fields.

Other rooms import the modules of `__all__`; the rest is for those who read answers.
"""

__all__ = ["encoding", "headers", "strict_json"]
