"""Can a dictionary describe these patches? The paper's assumption, measured."""
