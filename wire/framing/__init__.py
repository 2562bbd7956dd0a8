"""How bytes are framed, whoever's API it is: events, codings, JSON, header fields."""
