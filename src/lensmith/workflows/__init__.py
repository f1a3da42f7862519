"""What each command does, from end to end: the only place where packages of one row meet."""
