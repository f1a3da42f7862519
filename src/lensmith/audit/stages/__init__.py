"""The steps of an audit: a read-out and an estimator become a finding."""
