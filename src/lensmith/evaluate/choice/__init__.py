"""Multiple choice: files of questions, answers read from text, and metrics with their errors."""
