"""What the Prefect worker imports: a thin flow around code that knows no Prefect.

Law of this layer: only `flow.py` imports prefect; only `process.py` starts processes.
"""
