"""The use cases: gather through ports, decide in `core`, act through ports.

Law of this layer: it never imports an adapter or an adapter's library; the ports it needs are in `ports.py`.
"""
