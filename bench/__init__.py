"""Measurements, and what they share with the tests and the demo: generated images, a running cluster, an FTP server."""
