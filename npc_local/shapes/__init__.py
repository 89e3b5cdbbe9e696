"""The embedded world of coloured shapes: scenes, drawer, exact detector, agents, generator."""
