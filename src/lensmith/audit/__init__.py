"""The audit: what an endpoint gives away about its model, asked through the endpoint alone."""
