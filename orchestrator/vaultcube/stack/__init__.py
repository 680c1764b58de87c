"""From a plan to containers and back: plan, compose override, lifecycle, and the one file that talks to docker."""
