"""Tables as DataFrames: what the library takes and gives."""
