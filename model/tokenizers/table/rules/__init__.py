"""What columns of one row, or of all rows, must be like together: `signup <= last_login`, `pair(city, country)`."""
