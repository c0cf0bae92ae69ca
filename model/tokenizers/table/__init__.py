"""Tables: columns to ids and back, number bins, dates."""
