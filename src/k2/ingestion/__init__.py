"""The running services: they join the rooms, and alone log and count what the core found."""
