"""`slimseg export`, step by step: a writer for each runtime, and the checks that an artefact has to pass."""
