"""The gate beside what people would use instead: same servers and addresses, one run."""
