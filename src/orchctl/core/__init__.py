"""The rules of orchctl, as plain values and functions.

Law of this layer: no I/O, no clock, no globals that change. What a function needs to know (the time, the
environment, what is on disk) it is given. The time zone database counts as data, not as I/O.
"""
