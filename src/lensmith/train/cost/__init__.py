"""What a training step costs before it is run: parameters, arithmetic, memory of a process, and time."""
