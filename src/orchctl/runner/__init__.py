"""What the Prefect worker imports: a thin flow around code that knows no Prefect.

Law of this layer: only `flow.py`, `flow_tasks.py` and `instants.py` import prefect; only `process.py` starts commands,
and only `guard.py` a process that outlives the flow run's own.
"""
