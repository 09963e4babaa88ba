"""Real processes of an agent, killed, frozen and cut off while clients use it: `make chaos`."""
