"""The performance model: cycles of layers and instructions, the timeline of a program, and the reports."""
