"""The command line: one module per family of commands, and no logic that another room can have.

`app.run()` is the whole program. A command is one function, listed in `app`; it returns its exit
code (None is 0) and raises LlmCacheError for what goes wrong. Nothing heavy is imported until a
command needs it, so that `--help` stays quick.
"""
