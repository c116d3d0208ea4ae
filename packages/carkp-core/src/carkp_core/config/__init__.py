"""Configs: Python files of dicts with ``type``, located, overridden, checked, and built."""
