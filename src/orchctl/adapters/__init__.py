"""One file per outside thing: the file system, the Prefect API, processes.

Law of this layer: it fulfils `services/ports.py` by shape without importing it, imports `core` and `errors`
only, and turns every foreign error into one of ours.
"""
