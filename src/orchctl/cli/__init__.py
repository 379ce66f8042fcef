"""Words, flags, one call, one render.

Law of this layer: no decision about the domain; only `render.py` prints; nothing heavy is imported before a
command needs it.
"""
