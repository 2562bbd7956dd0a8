"""Presets: what known agents write into their requests that differs from run to run.

A preset is a data file of this folder, one for each agent: how its requests are recognized, and
rules, each with what it was seen in. `catalog` reads the files, `texts` finds the places of a
request where an agent writes, `applying` takes out what the rules name.
"""

__all__ = ["catalog"]
