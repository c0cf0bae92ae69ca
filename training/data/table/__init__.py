"""Tables: CSV and Parquet, what their columns are, the Adult table."""
