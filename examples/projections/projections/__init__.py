"""A small stand-in for a projections pipeline: nine programs that read and write Parquet, and what they share."""
