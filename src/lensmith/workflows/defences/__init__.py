"""What each defence costs an attacker, and an honest user."""
