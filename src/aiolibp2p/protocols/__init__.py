"""The protocols that every host speaks, and perf, which is off unless asked for."""
