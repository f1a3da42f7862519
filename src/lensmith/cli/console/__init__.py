"""What commands share: progress on stderr, results on stdout, common options, and the line that installs an extra."""
