"""An audit as files: JSON, HTML, SARIF and JUnit."""
