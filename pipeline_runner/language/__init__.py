"""The language: YAML text in, diagnostics or a bundle out. Imports neither temporalio nor the engine."""
