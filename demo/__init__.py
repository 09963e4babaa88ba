"""The demo: `make demo` starts the desk, plays its main job, shows the trace, and stops everything."""
