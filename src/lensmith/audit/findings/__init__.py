"""The vocabulary of an audit: read-outs, costs, severities, cures, and how they are worded."""
