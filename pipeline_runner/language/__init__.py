"""The language: from YAML to diagnostics or a bundle. Imports neither temporalio nor the engine."""
